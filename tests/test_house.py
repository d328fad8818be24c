"""The rules of the house that no other tool checks."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEMBERS = [*sorted(ROOT.glob("packages/*/")), *sorted(ROOT.glob("apps/*/")), ROOT / "benchmarks"]
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
LARGEST_FILE = 4_000_000  # bytes
LARGE_ON_PURPOSE = {".safetensors", ".parquet"}  # the shipped model and data, which have limits of their own
LARGEST_ON_PURPOSE = 20_000_000
OLD_NAMES = re.compile(r"_(new|old|legacy|v\d+|copy|final)$")


def files_of_the_project() -> list[Path]:
    """What git tracks or would track."""
    if shutil.which("git") is None:
        pytest.skip("there is no git", allow_module_level=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout", allow_module_level=True)
    names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


FILES = files_of_the_project()


def project(member: Path) -> dict:
    return tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_member_is_complete(member):
    (package,) = (folder for folder in (member / "src").iterdir() if not folder.name.endswith(".egg-info"))
    described = project(member)
    assert package.name == described["name"].replace("-", "_")
    assert (package / "py.typed").is_file()
    assert (package / "__init__.py").is_file()
    assert len((member / "README.md").read_text(encoding="utf-8").splitlines()) > 5, "the README says next to nothing"
    assert list((member / "tests").glob("test_*.py")), "no tests"
    assert described["license"] == "MIT"
    assert described["readme"] == "README.md"
    assert described["description"]


def test_one_version():
    versions = {project(folder)["name"]: project(folder)["version"] for folder in (ROOT, *MEMBERS)}
    assert len(set(versions.values())) == 1, versions
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {versions['druse']}\n" in citation
    assert f"\n## {versions['druse']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module", ["druse_crystal", "druse_generate.cli", "druse_train.cli", "druse_evaluate.cli", "druse.cli"]
)
def test_help_needs_no_torch(module):
    """Torch and pymatgen take seconds to import; a command line that only prints its help imports neither."""
    code = f"import sys, {module}; print(sorted({{'torch', 'pymatgen', 'scipy'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_workspace_installs_every_member():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {project(member)["name"] for member in MEMBERS}
    assert set(declared["project"]["dependencies"]) == names
    assert set(declared["tool"]["uv"]["sources"]) == names
    assert set(declared["tool"]["importlinter"]["root_packages"]) == {name.replace("-", "_") for name in names}


def test_test_files_have_names_of_their_own():
    names = Counter(file.name for file in FILES if file.name.startswith("test_") and file.suffix == ".py")
    assert [name for name, count in names.items() if count > 1] == []


def test_files_are_named_for_what_they_hold():
    modules = [file for file in FILES if file.suffix == ".py"]
    bad = [str(f.relative_to(ROOT)) for f in modules if f.stem in FORBIDDEN_NAMES or OLD_NAMES.search(f.stem)]
    bad += [str(file.relative_to(ROOT)) for file in modules if FORBIDDEN_NAMES & set(file.relative_to(ROOT).parts[:-1])]
    assert bad == []


def test_no_file_is_large():
    large = {}
    for file in FILES:
        limit = LARGEST_ON_PURPOSE if file.suffix in LARGE_ON_PURPOSE else LARGEST_FILE
        if (size := file.stat().st_size) > limit:
            large[str(file.relative_to(ROOT))] = size
    assert large == {}


def test_no_path_of_a_machine_stands_in_a_text():
    """Absolute paths of home directories and of this checkout, which are true on one machine only."""
    somebodys = re.compile(
        rf"/(?:home|Users)/\w|/root/|{re.escape(str(ROOT.parent))}/" if len(ROOT.parts) > 2 else r"/home/\w"
    )
    found = []
    for file in FILES:
        if file.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".cff", ""} and file != Path(__file__):
            text = file.read_text(encoding="utf-8", errors="ignore")
            found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in somebodys.finditer(text)]
    assert found == []


def test_no_index_is_configured():
    words = re.compile(r"index-url|extra-index|find-links|\[\[tool\.uv\.index\]\]")
    configuration = [
        file for file in FILES if file.suffix in {".toml", ".cfg", ".ini", ".yaml", ".yml"} or file.parent.name == ".ci"
    ]
    assert [str(f.relative_to(ROOT)) for f in configuration if words.search(f.read_text(encoding="utf-8"))] == []


def test_float64_not_on_devices_without_it():
    """Apple GPUs have no float64: it is asked for on the CPU, or by ``in_float64``, which knows them."""
    careless = re.compile(r"(?<!\.cpu\(\))\.double\(\)")
    for path in (path for member in MEMBERS for path in member.glob("src/**/*.py")):
        if path.name in ("device.py", "testing.py"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not careless.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
