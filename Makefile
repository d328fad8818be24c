# Everything a contributor runs. `make check` is what has to pass before a commit.

MEMBERS := $(wildcard packages/* apps/* benchmarks)
RUN := uv run --no-sync

.PHONY: install format lint types test docs check lock

install:  ## create .venv with every member; keep download addresses out of the commits of uv.lock
	uv sync
	@if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then \
		git config filter.address-free-lock.clean "python3 tools/lock.py"; \
		git config filter.address-free-lock.smudge cat; \
		git config filter.address-free-lock.required true; \
		git add uv.lock; \
	fi

format:  ## rewrite the code in the one style
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

lint:  ## style, likely mistakes, who may import whom, declared dependencies
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) lint-imports --no-logo
	@set -e; for member in $(MEMBERS); do \
		echo "deptry $$member"; \
		(cd $$member && $(RUN) deptry src --no-ansi); \
	done

types:  ## static types
	$(RUN) ty check

test:  ## fast tests; `make test PYTEST="-m slow"` runs the slow ones
	$(RUN) pytest $(PYTEST)

docs:  ## links and commands of the documents; API pages in build/docs
	$(RUN) pytest tests/test_docs.py
	$(RUN) pdoc --docformat google --output-directory build/docs $(notdir $(wildcard packages/*/src/* apps/*/src/* benchmarks/src/*))

check: lint types test docs  ## all of it

lock:  ## pin the versions that pyproject.toml asks for, without addresses (upgrade with `uv lock --upgrade` first)
	uv lock
	python3 tools/lock.py uv.lock
