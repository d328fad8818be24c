"""Bond lengths and coordination numbers that known crystals have, and what is outside of them."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from druse_evaluation.bonds import LONGEST_BOND, Bonds, all_metal, covalent_length, metals_among

TOLERANCE = 1.05
"""Bonds may be shorter or longer than any known one by this factor."""
MIN_CRYSTALS = 5
"""A pair of elements has a range of its own if so many known crystals hold it; others are measured by their radii."""
MIN_COORDINATED = 10
"""An element has a range of coordination numbers if so many known crystals hold it."""
TAIL = 0.005
"""Share of the known crystals that is left out at either end of a range: with 200 crystals the first one. It takes
more than one odd crystal to make a length a known one."""
KINDS = ("non-metals", "metal and non-metal", "metals")


@dataclass(frozen=True, kw_only=True)
class KnownBonds:
    """Ranges that known crystals span, a share of ``TAIL`` of them left out at either end.

    Attributes:
        shortest: for ``A-B``, elements in the order of their atomic numbers, the number of crystals with such a bond
            and the shortest length in Å.
        farthest: for ``A-B``, where B is the nearest neighbour of A, the number of crystals and the longest distance
            in Å.
        by_radii: for each of ``KINDS`` the lowest bond length and the highest distance to the nearest neighbour, in
            sums of covalent radii; a kind without crystals bounds nothing.
        coordination: for an element, in crystals of metals alone (``Fe in metals``) and in others (``Fe``), the number
            of crystals and the lowest and highest coordination number.
        provenance: where this comes from.
    """

    shortest: Mapping[str, tuple[int, float]]
    farthest: Mapping[str, tuple[int, float]]
    by_radii: Mapping[str, tuple[float, float]]
    coordination: Mapping[str, tuple[int, int, int]]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def strange_lengths(self, bonds: Bonds) -> list[str]:
        """Bonds that are shorter, and nearest neighbours that are farther away, than in known crystals, in words."""
        strange = []
        for (a, b), length in sorted(bonds.shortest().items()):
            bound, known = self._lower_bound(a, b)
            if length < bound / TOLERANCE:
                strange.append(f"{_pair(a, b)} {length:.2f} Å is short, known from {bound:.2f} Å{known}")
        for (a, b), length in sorted(bonds.farthest_nearest().items()):
            bound, known = self._upper_bound(a, b)
            if length > bound * TOLERANCE:
                strange.append(f"{_pair(a, b)} {length:.2f} Å is long, known up to {bound:.2f} Å{known}")
        return strange

    def strange_coordination(self, bonds: Bonds) -> list[str]:
        """Numbers of bonds that no known crystal has for the element, in words."""
        numbers, counts = bonds.crystal.atomic_numbers, bonds.coordination()
        strange = []
        for z in np.unique(numbers).tolist():
            here = counts[numbers == z]
            low, high = int(here.min()), int(here.max())
            known = self.coordination.get(_environment(z, bonds))
            if known is None or known[0] < MIN_COORDINATED:
                if low == 0:
                    strange.append(f"{chemical_symbols[z]} has no neighbour within {LONGEST_BOND} sums of radii")
                continue
            _, lowest, highest = known
            if low < lowest:
                strange.append(f"{chemical_symbols[z]} has {low} bonds, known {lowest} to {highest}")
            if high > highest:
                strange.append(f"{chemical_symbols[z]} has {high} bonds, known {lowest} to {highest}")
        return strange

    def _lower_bound(self, a: int, b: int) -> tuple[float, str]:
        count, length = self.shortest.get(_pair(a, b), (0, 0.0))
        if count >= MIN_CRYSTALS:
            return length, ""
        return self._range(a, b)[0] * covalent_length(a, b), " by radii"

    def _upper_bound(self, a: int, b: int) -> tuple[float, str]:
        count, length = self.farthest.get(_pair(a, b), (0, 0.0))
        if count >= MIN_CRYSTALS:
            return length, ""
        return self._range(a, b)[1] * covalent_length(a, b), " by radii"

    def _range(self, a: int, b: int) -> tuple[float, float]:
        return self.by_radii.get(KINDS[metals_among(a, b)], (0.0, math.inf))


def collect_known_bonds(crystals: Iterable[Bonds], *, provenance: Mapping[str, Any]) -> KnownBonds:
    """The ranges that these crystals span."""
    shortest, farthest = defaultdict(list), defaultdict(list)
    coordination: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for bonds in crystals:
        for pair, length in bonds.shortest().items():
            shortest[pair].append(length)
        for pair, length in bonds.farthest_nearest().items():
            farthest[pair].append(length)
        numbers, counts = bonds.crystal.atomic_numbers, bonds.coordination()
        for z in np.unique(numbers).tolist():
            here = counts[numbers == z]
            coordination[_environment(z, bonds)].append((int(here.min()), int(here.max())))
    low, high = _by_radii(shortest), _by_radii(farthest)
    return KnownBonds(
        shortest={_pair(*pair): (len(x), round(_lowest(x), 3)) for pair, x in sorted(shortest.items())},
        farthest={_pair(*pair): (len(x), round(_highest(x), 3)) for pair, x in sorted(farthest.items())},
        by_radii={kind: (round(_lowest(low[kind]), 3), round(_highest(high[kind]), 3)) for kind in KINDS if low[kind]},
        coordination={
            name: (len(x), _lowest([low for low, _ in x]), _highest([high for _, high in x]))
            for name, x in sorted(coordination.items())
        },
        provenance=dict(provenance),
    )


@cache
def load_known_bonds() -> KnownBonds:
    """The ranges of embedded structures of the Materials Project, without those of the splits val and test.

    They are made by ``python -m druse_evaluation.derivation``.
    """
    text = (files("druse_evaluation") / "data" / "known-bonds.json").read_text(encoding="utf-8")
    stored = json.loads(text)
    return KnownBonds(
        shortest={pair: (int(n), float(x)) for pair, (n, x) in stored["shortest"].items()},
        farthest={pair: (int(n), float(x)) for pair, (n, x) in stored["farthest"].items()},
        by_radii={kind: (float(low), float(high)) for kind, (low, high) in stored["by_radii"].items()},
        coordination={name: (int(n), int(a), int(b)) for name, (n, a, b) in stored["coordination"].items()},
        provenance=stored["provenance"],
    )


def _by_radii(lengths: Mapping[tuple[int, int], list[float]]) -> dict[str, list[float]]:
    """All lengths in sums of covalent radii, by how many of the two elements are metals."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for (a, b), values in lengths.items():
        found[KINDS[metals_among(a, b)]] += [value / covalent_length(a, b) for value in values]
    return found


def _lowest[T: (int, float)](values: list[T]) -> T:
    return sorted(values)[int(TAIL * len(values))]


def _highest[T: (int, float)](values: list[T]) -> T:
    return sorted(values, reverse=True)[int(TAIL * len(values))]


def _pair(a: int, b: int) -> str:
    return f"{chemical_symbols[a]}-{chemical_symbols[b]}"


def _environment(z: int, bonds: Bonds) -> str:
    return chemical_symbols[z] + (" in metals" if all_metal(bonds.crystal) else "")
