"""Before the expensive relaxation: drop what cannot work, and take the most promising of the rest.

The order is that of the judged energy above hull of the crystals as drawn (one evaluation of the potential each), known
structures and repetitions last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from druse_crystal import Crystal
from druse_energetics.potential import Potential
from druse_energetics.reference import Reference
from druse_energetics.relaxation import refusal
from druse_evaluation.assessment import DOUBTFUL
from druse_evaluation.matching import OrderedMatcher
from druse_evaluation.novelty import KnownStructures, first_occurrences
from druse_evaluation.validity import composition_valid, structure_valid

_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class Screening:
    """What the screening saw.

    Attributes:
        chosen: positions of the crystals to relax, best first.
        counts: how many of the pool passed each test, in order.
    """

    chosen: tuple[int, ...]
    counts: dict[str, int]


def screen(
    crystals: Sequence[Crystal | None],
    num: int,
    *,
    potential: Potential,
    reference: Reference,
    on_progress: Callable[[int, int], None] | None = None,
) -> Screening:
    """Choose ``num`` crystals of a pool.

    A crystal must be structurally valid and one that the judge can relax (elements it knows, a solid's density). The
    others are ranked: new and first of their kind before known or repeated, charge-balanced before not, then by energy
    above hull. An energy so far below the hull that it must be wrong counts as no energy.

    Args:
        crystals: the pool; None where the generator failed.
        num: how many to choose; fewer come back if fewer are usable.
        potential: of the judge.
        reference: of the judge.
        on_progress: called with crystals evaluated and their number.
    """
    usable = [
        i
        for i, crystal in enumerate(crystals)
        if crystal is not None and structure_valid(crystal) and refusal(crystal, potential) is None
    ]
    pool = [crystal for i in usable if (crystal := crystals[i]) is not None]
    energies: list[float] = []
    for start in range(0, len(pool), _CHUNK):
        chunk = pool[start : start + _CHUNK]
        energies += judged_energies(potential, chunk)
        if on_progress is not None:
            on_progress(len(energies), len(pool))
    above = np.array([above_hull(reference, c, e) for c, e in zip(pool, energies, strict=True)])
    matcher = OrderedMatcher()
    first = np.array([i == j for i, j in enumerate(first_occurrences(pool, matcher=matcher))], dtype=bool)
    known = KnownStructures(reference.crystals, matcher=matcher)
    new = first & np.array([known.first_match(crystal) is None for crystal in pool], dtype=bool)
    balanced = np.array([composition_valid(crystal) for crystal in pool], dtype=bool)
    order = np.lexsort((np.nan_to_num(above, nan=np.inf), ~balanced, ~new))
    return Screening(
        chosen=tuple(usable[i] for i in order[:num]),
        counts={
            "drawn": len(crystals),
            "usable": len(usable),
            "new and unique": int(new.sum()),
            "charge-balanced too": int((new & balanced).sum()),
            "chosen": min(num, len(order)),
        },
    )


def judged_energies(potential: Potential, crystals: Sequence[Crystal]) -> list[float]:
    """eV per cell; NaN for a crystal on which the potential fails."""
    try:
        return potential.energies(crystals).tolist()
    except Exception:  # an error of the potential names no crystal: give each its own try
        if len(crystals) == 1:
            return [float("nan")]
        return [energy for crystal in crystals for energy in judged_energies(potential, [crystal])]


def above_hull(reference: Reference, crystal: Crystal, energy: float) -> float:
    """eV/atom above the hull for an energy in eV per cell; NaN where that cannot be had, or is not to be believed."""
    try:
        above = reference.energy_above_hull(crystal, energy)
    except ValueError:
        return float("nan")
    return above if above >= DOUBTFUL else float("nan")
