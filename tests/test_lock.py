import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECTS = [ROOT, *ROOT.glob("packages/*/"), *ROOT.glob("apps/*/"), ROOT / "benchmarks"]
TOOL = ROOT / "tools" / "lock.py"

COMPLETED = """
version = 1
revision = 5
requires-python = "==3.12.*"
resolution-markers = [
    "sys_platform == 'win32'",
    "sys_platform != 'win32'",
]

[manifest]
members = ["druse"]

[[package]]
name = "druse"
version = "0.1.0"
source = { editable = "apps/druse" }
dependencies = [
    { name = "rich" },
]

[package.metadata]
requires-dist = [{ name = "rich", specifier = ">=13" }]

[[package]]
name = "rich"
version = "15.0.0"
source = { registry = "https://index.example/simple" }
resolution-markers = ["sys_platform == 'win32'"]
sdist = { url = "https://index.example/rich-15.0.0.tar.gz", hash = "sha256:00", size = 1 }
wheels = [
    { url = "https://index.example/rich-15.0.0-py3-none-any.whl", hash = "sha256:00", size = 1 },
]
"""


def clean(text: str) -> str:
    done = subprocess.run([sys.executable, TOOL], input=text, capture_output=True, encoding="utf-8", check=True)
    return done.stdout


def addresses(text: str) -> list[str]:
    return [line for line in text.splitlines() if "://" in line or "wheels" in line or "sdist" in line]


@pytest.fixture(scope="module")
def committed() -> str:
    """The lock as git has it: what is staged, which after a commit is what was committed."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    shown = subprocess.run(["git", "show", ":uv.lock"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if shown.returncode != 0:
        pytest.skip(f"uv.lock is not under version control here: {shown.stderr.strip()}")
    return shown.stdout


def test_committed_lock_names_no_address(committed):
    found = addresses(committed)
    assert not found, f"uv.lock was committed with addresses ({found[0]}); run `make install lock` and commit it again"


def test_committed_lock_is_what_the_tool_writes(committed):
    assert clean(committed) == committed


def test_committed_lock_pins_every_declared_dependency(committed):
    pinned = {package["name"]: package["version"] for package in tomllib.loads(committed)["package"]}
    for member in PROJECTS:
        declared = tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))
        wanted = [*declared["project"]["dependencies"], *declared.get("dependency-groups", {}).get("dev", [])]
        for requirement in map(Requirement, wanted):
            name = canonicalize_name(requirement.name)
            assert name in pinned, f"{member.name} needs {name}, which uv.lock does not pin: run `make lock`"
            assert requirement.specifier.contains(pinned[name]), f"{member.name} needs {requirement}: run `make lock`"


def test_tool_keeps_versions_and_drops_the_rest():
    before, text = tomllib.loads(COMPLETED), clean(COMPLETED)
    after = tomllib.loads(text)
    assert not addresses(text)
    assert [(p["name"], p["version"]) for p in after["package"]] == [
        (p["name"], p["version"]) for p in before["package"]
    ]
    for key in ("version", "requires-python", "resolution-markers", "manifest"):
        assert after[key] == before[key]
    assert after["package"][0]["source"] == {"editable": "apps/druse"}
    assert after["package"][1]["resolution-markers"] == ["sys_platform == 'win32'"]


def test_tool_leaves_its_own_output_alone():
    assert clean(clean(COMPLETED)) == clean(COMPLETED)


def test_tool_rewrites_a_file_in_place(tmp_path):
    lock = tmp_path / "uv.lock"
    lock.write_text(COMPLETED, encoding="utf-8")
    subprocess.run([sys.executable, TOOL, lock], check=True)
    assert lock.read_text(encoding="utf-8") == clean(COMPLETED)
    assert list(tmp_path.iterdir()) == [lock]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<<<<<< ours", "no lock of uv"),
        ("version = 1", "no lock of uv"),
        (COMPLETED.replace("registry", "git"), "rich comes from git"),
    ],
)
def test_tool_refuses_what_it_cannot_clean(text, message):
    done = subprocess.run([sys.executable, TOOL], input=text, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
