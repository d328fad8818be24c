"""How a result was made: command, versions, seed, hashes and timings of a run, as ``manifest.json``."""

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from druse_crystal.files import write_text

LIBRARIES = (
    "torch",
    "numpy",
    "pymatgen",
    "pymatgen-core",
    "spglib",
    "ase",
    "torch-sim-atomistic",
    "sevenn",
    "chgnet",
    "smact",
)


def versions() -> dict[str, str]:
    """Versions of Python, of the installed Druse packages and of the libraries that decide results."""
    druse = sorted(
        {d.name for d in distributions() if d.name and d.name.lower().startswith("druse")} - {"druse-workspace"}
    )
    found = {"python": platform.python_version()}
    for name in (*druse, *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def file_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file, or of all files of a folder with their relative names, as hexadecimal digits.

    A file of a folder that may not be read counts with its name alone.

    Raises:
        OSError: if a single file cannot be read.
    """
    path, digest = Path(path), hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
            if not os.access(file, os.R_OK):
                continue
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass(kw_only=True)
class Manifest:
    """Provenance of one run, filled in while it goes on.

    Attributes:
        command: the command line, one word an item.
        seed: seed of the run's random numbers, None where nothing is random.
        settings: the configuration, as plain JSON values.
        inputs: SHA-256 of every file that was read, by the name the user gave.
        results: counts and figures worth keeping.
        timings: seconds by stage.
    """

    command: list[str] = field(default_factory=lambda: [Path(sys.argv[0]).name, *sys.argv[1:]])
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to the timing ``name``, also when it is interrupted."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def add_input(self, path: str | os.PathLike) -> None:
        """Note the hash of a file or folder that the run reads."""
        self.inputs[str(path)] = file_hash(path)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "command": self.command,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": self.seed,
            "versions": versions(),
            "machine": {
                "system": f"{platform.system()} {platform.release()}",
                "processor": platform.machine(),
                "cpu_count": os.cpu_count(),
            },
            "settings": self.settings,
            "inputs": self.inputs,
            "results": self.results,
            "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
        }

    def write(self, path: str | os.PathLike) -> None:
        """Write ``manifest.json``, complete or not at all."""
        write_text(path, json.dumps(self.as_dict(), indent=2, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """JSON form of paths, numpy numbers and mappings; everything else as its text."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    return str(value)
