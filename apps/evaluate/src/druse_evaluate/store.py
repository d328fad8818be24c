"""Finished relaxations on disk, so that an interrupted run continues where it stopped."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from druse_crystal.crystal import Crystal
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json, crystal_key
from druse_energetics.relaxation import OnResult, Relaxation, Relaxer

_PLAIN = ("status", "message", "energy", "initial_energy", "max_force", "n_steps")


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


class StoredRelaxer:
    """A relaxer that remembers: it relaxes what the store does not have, and keeps every result as soon as it is there.

    Args:
        store: finished relaxations.
        make: makes the relaxer to ask, once, when there is something to relax.
        name: of the potential.
    """

    def __init__(self, store: RelaxationStore, make: Callable[[], Relaxer], *, name: str):
        self.store = store
        self.name = name
        self._make = make
        self._relaxer: Relaxer | None = None

    def __call__(self, crystals: Sequence[Crystal], *, on_result: OnResult | None = None) -> list[Relaxation]:
        """Relax; see ``Relaxer``."""
        todo, results = [], {}
        for index, crystal in enumerate(crystals):
            if (relaxation := self.store.get(crystal)) is None:
                todo.append(index)
                continue
            results[index] = relaxation
            if on_result is not None:
                on_result(index, relaxation)

        def keep(position: int, relaxation: Relaxation) -> None:
            index = todo[position]
            self.store.keep(crystals[index], relaxation)
            results[index] = relaxation
            if on_result is not None:
                on_result(index, relaxation)

        if todo:
            self._relaxer = self._relaxer or self._make()
            self._relaxer([crystals[index] for index in todo], on_result=keep)
        return [results[index] for index in range(len(crystals))]


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
