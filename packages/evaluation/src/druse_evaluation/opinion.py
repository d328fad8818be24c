"""Second opinions: further judges of the same crystals, each on the hull of its own energies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from druse_crystal.crystal import Crystal
from druse_energetics.reference import Reference
from druse_energetics.relaxation import Relaxation

OWN_HULL = "energy_above_own_hull_{}"


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one potential makes of the crystals.

    Attributes:
        reference: its own hull, such as ``embedded-chgnet``.
        relaxations: one for each crystal, None where there is none.
    """

    reference: Reference
    relaxations: Sequence[Relaxation | None]

    def energy_above_hull(self, row: int) -> float | None:
        """eV/atom; None if the relaxation came to nothing or an element is unknown to the potential's hull."""
        relaxation = self.relaxations[row]
        crystal: Crystal | None = None if relaxation is None else relaxation.crystal
        if relaxation is None or crystal is None or relaxation.status not in ("converged", "not_converged"):
            return None
        if not math.isfinite(relaxation.energy):
            return None
        try:
            return self.reference.energy_above_hull(crystal, relaxation.energy)
        except ValueError:
            return None


def opinion_facts(row: int, opinions: Mapping[str, Opinion], *, bound: float) -> dict[str, Any]:
    """Columns of one crystal: each judge's distance to its own hull, and the largest difference between two of them.

    Args:
        row: the crystal.
        opinions: by the name of the potential.
        bound: eV/atom above the own hull up to which a judge calls it metastable.
    """
    distances = {name: opinion.energy_above_hull(row) for name, opinion in opinions.items()}
    given = [distance for distance in distances.values() if distance is not None]
    return {OWN_HULL.format(name): distance for name, distance in distances.items()} | {
        "disagreement": max(given) - min(given) if len(given) > 1 else None,
        "metastable_to_all": len(given) == len(distances) and max(given) <= bound if given else None,
    }
