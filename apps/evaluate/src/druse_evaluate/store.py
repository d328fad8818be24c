"""Finished relaxations on disk, one line each, so that an interrupted run continues where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.files import writable_folder
from druse_energetics.relaxation import Relaxation


def crystal_key(crystal: Crystal) -> str:
    """A hash of lattice, coordinates and atomic numbers, to the last bit."""
    digest = hashlib.sha256()
    for array in (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RelaxationStore:
    """Relaxations by crystal, in a file of JSON lines that grows with every one that is finished.

    The first line names the settings. A last line that was cut off by an interruption is dropped.

    Args:
        path: the file; made when the first relaxation is kept.
        settings: potential, fmax and so on; relaxations with other settings are not mixed with these.

    Raises:
        ValueError: if the file is of another kind, or was made with other settings.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self.path = Path(path)
        self.settings = dict(settings)
        self._relaxations: dict[str, Relaxation] = {}
        if self.path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._relaxations)

    def get(self, crystal: Crystal) -> Relaxation | None:
        """The relaxation of exactly this crystal, None if it has not been done."""
        return self._relaxations.get(crystal_key(crystal))

    def keep(self, crystal: Crystal, relaxation: Relaxation) -> None:
        """Add a relaxation to the file.

        Raises:
            ValueError: if the folder cannot be written to.
        """
        if not self.path.exists():
            writable_folder(self.path.parent)
            self._append({"druse_relaxations": 1, "settings": self.settings})
        key = crystal_key(crystal)
        self._append({"key": key, **_as_json(relaxation)})
        self._relaxations[key] = relaxation

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise ValueError(f"cannot write {self.path} ({error.strerror or error})") from error

    def _read(self) -> None:
        content = self.path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        try:
            first, *lines = [json.loads(line) for line in complete.splitlines()] or [{}]
            if "druse_relaxations" not in first:
                raise KeyError("druse_relaxations")
            relaxations = {line["key"]: _from_json(line) for line in lines}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} does not hold relaxations: remove it, or choose another folder") from error
        if first["settings"] != self.settings:
            raise ValueError(
                f"{self.path} holds relaxations with other settings ({_in_words(first['settings'])}, now "
                f"{_in_words(self.settings)}): choose another folder, or remove the file"
            )
        if len(complete) < len(content):
            os.truncate(self.path, len(complete))
        self._relaxations = relaxations


def _in_words(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in settings.items())


def _as_json(relaxation: Relaxation) -> dict[str, Any]:
    crystal = relaxation.crystal
    return {
        "status": relaxation.status,
        "message": relaxation.message,
        "energy": float(relaxation.energy),
        "initial_energy": float(relaxation.initial_energy),
        "max_force": float(relaxation.max_force),
        "n_steps": int(relaxation.n_steps),
        "crystal": None
        if crystal is None
        else {
            "lattice": crystal.lattice.tolist(),
            "frac_coords": crystal.frac_coords.tolist(),
            "atomic_numbers": crystal.atomic_numbers.tolist(),
        },
    }


def _from_json(line: Mapping[str, Any]) -> Relaxation:
    crystal = line["crystal"]
    return Relaxation(
        crystal=None if crystal is None else Crystal(**{name: np.array(value) for name, value in crystal.items()}),
        energy=line["energy"],
        initial_energy=line["initial_energy"],
        max_force=line["max_force"],
        n_steps=line["n_steps"],
        status=line["status"],
        message=line["message"],
    )
