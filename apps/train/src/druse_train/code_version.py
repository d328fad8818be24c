"""The code that a checkpoint was made with, for its provenance."""

import subprocess
from importlib.metadata import version
from pathlib import Path


def code_version() -> dict[str, str]:
    """Version of druse-train and, in a git checkout of it, the commit, with ``-dirty`` if files have changed since."""
    found = {"version": version("druse-train")}
    file = Path(__file__)
    if _git("ls-files", "--error-unmatch", file.name, folder=file.parent):  # else the checkout is somebody else's
        commit = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", folder=file.parent)
        if commit:
            found["commit"] = commit
    return found


def _git(*arguments: str, folder: Path) -> str:
    """What git says; nothing without git, outside of a checkout, or after an error."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
