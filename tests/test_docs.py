"""The documents: links lead somewhere, commands exist, examples compile."""

import re
import shlex
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).parent.parent
PATTERNS = ("*.md", "docs/**/*.md", "packages/**/*.md", "apps/**/*.md", "benchmarks/**/*.md")
DOCUMENTS = sorted({file for pattern in PATTERNS for file in ROOT.glob(pattern) if ".venv" not in file.parts})
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
START = "pip install uv && "  # how a command begins that is complete on a fresh machine


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def blocks(document: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(document.read_text(encoding="utf-8")) if language in languages]


def commands(document: Path) -> list[str]:
    """Command lines in the shell blocks of a document, without comments; a backslash continues a line."""
    lines = "\n".join(blocks(document, "bash", "sh", "console")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+\s+(.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(document):
    for link in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{name(document)} links to {link}, which is not there"
        assert ROOT in (target, *target.parents), f"{name(document)} links to {link}, outside of the project"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name(document)} links to {link}, and there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_python_examples_compile(document):
    for code in blocks(document, "python"):
        compile(code, name(document), "exec")


def test_readme_has_two_commands_for_a_fresh_machine():
    complete = [command for command in commands(ROOT / "README.md") if command.startswith(START)]
    assert len(complete) == 2
    assert complete[0].removeprefix(START).startswith("uv run druse discover ")
    assert complete[1] == f"{START}uv run pytest"
    assert complete[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@cache
def scripts() -> dict[str, Any]:
    """The command lines of the project, by the name of the script that its members install."""
    found = {}
    for member in (*ROOT.glob("apps/*/pyproject.toml"), ROOT / "benchmarks" / "pyproject.toml"):
        for script, place in tomllib.loads(member.read_text(encoding="utf-8"))["project"].get("scripts", {}).items():
            module, _, app = place.partition(":")
            found[script] = typer.main.get_command(getattr(import_module(module), app))
    return found


def check_command(command: Any, words: list[str], line: str) -> None:
    """Follow sub-commands, then look every option up."""
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        assert words[0] in command.commands, f"`{line}`: there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in {*options, "--help"}, f"`{line}`: there is no option {word}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_exist(document):
    for line in commands(document):
        words = shlex.split(line.removeprefix(START).removeprefix("uv run "), comments=True)
        if not words or not re.fullmatch(r"druse(-\w+)?", words[0]):
            continue
        assert words[0] in scripts(), f"{name(document)}: there is no command {words[0]}"
        check_command(scripts()[words[0]], words[1:], line)
