"""Finished relaxations on disk, so that an interrupted run continues where it stopped."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_energetics.relaxation import Relaxation

_PLAIN = ("status", "message", "energy", "initial_energy", "max_force", "n_steps")


def crystal_key(crystal: Crystal) -> str:
    """A hash of lattice, coordinates and atomic numbers, to the last bit."""
    digest = hashlib.sha256()
    for array in (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RelaxationStore:
    """Relaxations by crystal, in a ``Journal`` that grows with every one that is finished.

    Args:
        path: the file; made when the first relaxation is kept.
        settings: potential, fmax and so on; relaxations with other settings are not mixed with these.

    Raises:
        ValueError: if the file is of another kind, or was made with other settings.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self._journal = Journal(path, "relaxations", settings)
        try:
            self._relaxations = {line["key"]: _from_json(line) for line in self._journal.lines}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold relaxations: remove it, or choose another folder") from error

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
        key = crystal_key(crystal)
        self._journal.keep({"key": key, **_as_json(relaxation)})
        self._relaxations[key] = relaxation


def _as_json(relaxation: Relaxation) -> dict[str, Any]:
    return {
        "status": relaxation.status,
        "message": relaxation.message,
        "energy": float(relaxation.energy),
        "initial_energy": float(relaxation.initial_energy),
        "max_force": float(relaxation.max_force),
        "n_steps": int(relaxation.n_steps),
        "crystal": crystal_as_json(relaxation.crystal),
    }


def _from_json(line: Mapping[str, Any]) -> Relaxation:
    return Relaxation(crystal=crystal_from_json(line["crystal"]), **{name: line[name] for name in _PLAIN})
