"""Results on disk, one line each as soon as it is there, so that an interrupted run continues where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from druse_crystal.crystal import Crystal
from druse_crystal.files import writable_folder


class Journal:
    """A file of JSON lines that grows with every result.

    The first line names the kind of the results and the settings they were made with. A last line that was cut off by
    an interruption is dropped.

    Args:
        path: the file; made when the first result is kept.
        kind: what the lines are, for example ``relaxations``.
        settings: whatever decides the results; results of other settings are not mixed with these.

    Attributes:
        lines: the results so far.

    Raises:
        ValueError: if the file is of another kind, or was made with other settings.
    """

    def __init__(self, path: str | os.PathLike, kind: str, settings: Mapping[str, Any]):
        self.path = Path(path)
        self.kind = kind
        self.settings = json.loads(json.dumps(dict(settings)))
        self.lines: list[dict[str, Any]] = self._read() if self.path.exists() else []

    def __len__(self) -> int:
        return len(self.lines)

    def keep(self, line: dict[str, Any]) -> None:
        """Add a result.

        Raises:
            ValueError: if the folder cannot be written to.
        """
        if not self.path.exists():
            writable_folder(self.path.parent)
            self._append({"druse": self.kind, "settings": self.settings})
        self._append(line)
        self.lines.append(line)

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise ValueError(f"cannot write {self.path} ({error.strerror or error})") from error

    def _read(self) -> list[dict[str, Any]]:
        content = self.path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        try:
            first, *lines = [json.loads(line) for line in complete.splitlines()] or [{"druse": self.kind}]
            if first["druse"] != self.kind or not all(isinstance(line, dict) for line in lines):
                raise ValueError("another kind")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} does not hold {self.kind}: remove it, or choose another folder") from error
        settings = first.get("settings", self.settings)
        if settings != self.settings:
            changed = [k for k in {**settings, **self.settings} if settings.get(k) != self.settings.get(k)]
            words = ", ".join(f"{k} {settings.get(k)}, now {self.settings.get(k)}" for k in changed)
            raise ValueError(
                f"{self.path} holds {self.kind} with other settings ({words}): choose another folder or remove it"
            )
        if len(complete) < len(content):
            os.truncate(self.path, len(complete))
        if not complete:
            self.path.unlink()
        return lines


def crystal_key(crystal: Crystal) -> str:
    """A hash of lattice, coordinates and atomic numbers, to the last bit, in hexadecimal digits."""
    digest = hashlib.sha256()
    for array in (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def crystal_as_json(crystal: Crystal | None) -> dict[str, Any] | None:
    """A crystal as plain lists that give the same crystal back to the last bit."""
    if crystal is None:
        return None
    return {
        "lattice": crystal.lattice.tolist(),
        "frac_coords": crystal.frac_coords.tolist(),
        "atomic_numbers": crystal.atomic_numbers.tolist(),
    }


def crystal_from_json(content: Mapping[str, Any] | None) -> Crystal | None:
    """The crystal that ``crystal_as_json`` wrote.

    Raises:
        ValueError: if it is no crystal.
        KeyError: if a field is missing.
    """
    if content is None:
        return None
    return Crystal(
        lattice=np.array(content["lattice"]),
        frac_coords=np.array(content["frac_coords"]),
        atomic_numbers=np.array(content["atomic_numbers"]),
    )
