"""How many atoms of each element a crystal may have, and which elements its next atoms may therefore become."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from ase.data import chemical_symbols


@dataclass(frozen=True, kw_only=True)
class ElementCounts:
    """Bounds on the numbers of atoms of one crystal.

    Attributes:
        least: by atomic number, the fewest atoms; an element that is not named may be absent.
        most: by atomic number, the most atoms; an element that is not named has no limit of its own.
        others: whether elements that are named in neither may occur.
        among: elements that may be added, named or not; None: any.

    Raises:
        ValueError: for a negative number, or bounds that exclude each other.
    """

    least: Mapping[int, int] = field(default_factory=dict)
    most: Mapping[int, int] = field(default_factory=dict)
    others: bool = False
    among: frozenset[int] | None = None

    def __post_init__(self):
        for z, count in (*self.least.items(), *self.most.items()):
            if count < 0:
                raise ValueError(
                    f"{count} atoms of {chemical_symbols[z]} were asked for: give a number that is not below 0"
                )
        for z, count in self.least.items():
            if z in self.most and self.most[z] < count:
                raise ValueError(
                    f"at least {count} and at most {self.most[z]} atoms of {chemical_symbols[z]} were asked for: "
                    "one of the two has to give way"
                )

    @property
    def open(self) -> bool:
        """Whether there are elements that are not named and may occur."""
        return self.others and (self.among is None or bool(self.among - set(self.named)))

    @property
    def named(self) -> tuple[int, ...]:
        """Atomic numbers with a bound, rising."""
        return tuple(sorted({*self.least, *self.most}))

    def possible(self, orbits: Sequence[int], have: Mapping[int, int] = MappingProxyType({})) -> bool:
        """Whether a crystal can comply whose atoms come in orbits of these sizes, each of one element.

        Args:
            orbits: sizes.
            have: atoms of each element that are there besides.
        """
        return self._fillable(have, orbits)

    def choices(self, have: Mapping[int, int], size: int, rest: Sequence[int]) -> tuple[tuple[int, ...], bool]:
        """What an orbit may become without making it impossible for the rest to comply.

        Args:
            have: atoms of each element that are there already.
            size: atoms of the orbit.
            rest: sizes of the other orbits without an element.

        Returns:
            the named elements that it may become, and whether it may become one of ``among`` that is not named.
        """
        named = tuple(
            z
            for z in self.named
            if self._below(have, z, size) and self._fillable({**have, z: have.get(z, 0) + size}, rest)
        )
        return named, self.open and self._fillable(have, rest)

    def comply(self, atomic_numbers: Sequence[int]) -> bool:
        """Whether these atoms keep the bounds."""
        have = Counter(atomic_numbers)
        return (
            all(have[z] >= count for z, count in self.least.items())
            and all(have[z] <= count for z, count in self.most.items())
            and (self.others or set(have) <= set(self.named))
            and (self.among is None or set(have) <= self.among)
        )

    def _below(self, have: Mapping[int, int], z: int, size: int) -> bool:
        possible = self.among is None or z in self.among
        return possible and (z not in self.most or have.get(z, 0) + size <= self.most[z])

    def _fillable(self, have: Mapping[int, int], orbits: Sequence[int]) -> bool:
        total = sum(orbits)
        missing = [max(0, self.least.get(z, 0) - have.get(z, 0)) for z in self.named]
        room = [
            min(total, self.most.get(z, total + have.get(z, 0)) - have.get(z, 0))
            if self.among is None or z in self.among
            else 0
            for z in self.named
        ]
        return _fillable(tuple(sorted(orbits, reverse=True)), tuple(sorted(zip(missing, room, strict=True))), self.open)


@lru_cache(maxsize=1 << 16)
def _fillable(orbits: tuple[int, ...], bounds: tuple[tuple[int, int], ...], others: bool) -> bool:
    """Whether orbits of these sizes, falling, can be given to elements that each take ``(fewest, most)`` atoms."""
    total = sum(orbits)
    if any(missing > room for missing, room in bounds) or sum(missing for missing, _ in bounds) > total:
        return False
    if not others and sum(room for _, room in bounds) < total:
        return False
    if not orbits or orbits[0] == 1:
        return True
    first, rest = orbits[0], orbits[1:]
    for bound in dict.fromkeys(bounds):
        missing, room = bound
        if room >= first:
            left = list(bounds)
            left.remove(bound)
            left.append((max(0, missing - first), room - first))
            if _fillable(rest, tuple(sorted(left)), others):
                return True
    return others and _fillable(rest, bounds, others)
