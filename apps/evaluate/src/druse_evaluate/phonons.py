"""Look for imaginary modes of relaxed crystals, with every finished check kept."""

import os
from collections import Counter
from collections.abc import Callable, Sequence

from druse_crystal.console import Display
from druse_crystal.journal import Journal, crystal_key
from druse_energetics.phonons import (
    DISPLACEMENT,
    FMAX,
    MAX_ATOMS,
    MAX_EVALUATIONS,
    DynamicalStability,
    PhononCheck,
)
from druse_energetics.relaxation import Relaxation

_NOT_RELAXED = DynamicalStability(lowest_frequency=None, reason="not checked: there is no converged relaxation")


def check_all(
    relaxations: Sequence[Relaxation | None],
    *,
    path: str | os.PathLike,
    potential: str,
    make: Callable[[], PhononCheck],
    display: Display,
) -> list[DynamicalStability]:
    """The lowest frequency of every relaxed crystal, or why it was not checked; see ``druse_energetics.phonons``.

    Args:
        relaxations: None where there is none.
        path: a journal of finished checks, which an interrupted call, made again, continues.
        potential: its name.
        make: makes the check, when there is something to check.
        display: shows progress, and how many are stable.

    Raises:
        ValueError: if the journal is of another kind, was made with other settings, or cannot be written.
    """
    settings = {
        "potential": potential,
        "fmax": FMAX,
        "displacement": DISPLACEMENT,
        "max_atoms": MAX_ATOMS,
        "max_evaluations": MAX_EVALUATIONS,
    }
    journal = Journal(path, "phonons", settings)
    try:
        done = {line["key"]: DynamicalStability(**line["found"]) for line in journal.lines}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold phonons: remove it, or choose another folder") from error
    check: PhononCheck | None = None
    counts: Counter[str] = Counter()
    results = []
    display.update("phonons", 0, len(relaxations))
    for i, relaxation in enumerate(relaxations, start=1):
        found = _NOT_RELAXED
        if relaxation is not None and relaxation.converged and relaxation.crystal is not None:
            key = crystal_key(relaxation.crystal)
            if key not in done:
                check = check or make()
                done[key] = check(relaxation.crystal)
                plain = {"lowest_frequency": done[key].lowest_frequency, "reason": done[key].reason}
                journal.keep({"key": key, "found": plain})
            found = done[key]
        results.append(found)
        counts[{True: "stable", False: "unstable", None: "not checked"}[found.stable]] += 1
        display.update("phonons", i, len(relaxations), counts)
    return results
