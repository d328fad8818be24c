"""Uniqueness within a set, and novelty against known crystals."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence

from druse_crystal.crystal import Crystal

from druse_evaluation.matching import Comparable, FormulaKey, Matcher, formula_key


class KnownStructures:
    """Known crystals, found by reduced formula; the matcher decides among those with the same one.

    Building it looks only at the atomic numbers. A crystal is reduced when it is first compared, and kept.

    Args:
        crystals: the known crystals.
        ids: a name for each, returned by ``matches``; positions if not given.
        matcher: decides whether two crystals are the same.

    Raises:
        ValueError: if there are not as many ids as crystals.
    """

    def __init__(self, crystals: Sequence[Crystal], ids: Sequence[Hashable] | None = None, *, matcher: Matcher):
        self.ids = list(range(len(crystals))) if ids is None else list(ids)
        if len(self.ids) != len(crystals):
            raise ValueError(f"{len(self.ids)} ids for {len(crystals)} known crystals")
        self.matcher = matcher
        self._crystals = crystals
        self._by_formula: dict[FormulaKey, list[int]] = defaultdict(list)
        self._prepared: dict[int, Comparable] = {}
        for i, crystal in enumerate(crystals):
            self._by_formula[formula_key(crystal)].append(i)
        self._chemical_systems = {_elements(key) for key in self._by_formula}

    def __len__(self) -> int:
        return len(self.ids)

    def has_formula(self, crystal: Crystal) -> bool:
        """True if a known crystal has this reduced formula, whatever its structure."""
        return formula_key(crystal) in self._by_formula

    def has_chemical_system(self, crystal: Crystal) -> bool:
        """True if a known crystal consists of exactly these elements."""
        return _elements(formula_key(crystal)) in self._chemical_systems

    def first_match(self, crystal: Crystal | Comparable) -> Hashable | None:
        """Id of the first known crystal that is the same structure, None if the crystal is novel."""
        return next(self._matches(crystal), None)

    def matches(self, crystal: Crystal | Comparable) -> list[Hashable]:
        """Ids of all known crystals that are the same structure."""
        return list(self._matches(crystal))

    def _matches(self, crystal: Crystal | Comparable) -> Iterator[Hashable]:
        if isinstance(crystal, Crystal):
            if not self.has_formula(crystal):
                return
            crystal = self.matcher.prepare(crystal)
        for i in self._by_formula.get(crystal.key, ()):
            if i not in self._prepared:
                self._prepared[i] = self.matcher.prepare(self._crystals[i])
            if self.matcher.fit(crystal, self._prepared[i]):
                yield self.ids[i]


def _elements(key: FormulaKey) -> tuple[int, ...]:
    return tuple(z for z, _ in key)


class DistinctStructures:
    """Structures seen so far, each once. A crystal is reduced when another one has its formula, and not before."""

    def __init__(self, *, matcher: Matcher):
        self.matcher = matcher
        self._firsts: dict[FormulaKey, list[int]] = defaultdict(list)
        self._crystals: dict[int, Crystal | Comparable] = {}

    def add(self, position: int, crystal: Crystal) -> int:
        """Position of the first crystal added that is the same structure: its own if there is none."""
        self._crystals[position] = crystal
        seen = self._firsts[formula_key(crystal)]
        for first in seen:
            if self.matcher.fit(self._prepared(first), self._prepared(position)):
                del self._crystals[position]
                return first
        seen.append(position)
        return position

    def _prepared(self, position: int) -> Comparable:
        found = self._crystals[position]
        if isinstance(found, Crystal):
            found = self._crystals[position] = self.matcher.prepare(found)
        return found


def first_occurrences(
    crystals: Sequence[Crystal | None],
    *,
    matcher: Matcher,
    on_crystal: Callable[[int], None] | None = None,
) -> list[int | None]:
    """For every crystal the position of the first crystal in the sequence that is the same structure.

    A crystal is unique if that is its own position: of every class of equal structures the first one counts, as in
    MatterGen's evaluation, whatever the others' merits.

    Args:
        crystals: in the order in which they were made; None where there is none.
        matcher: decides whether two crystals are the same.
        on_crystal: called with the number of crystals done.

    Returns:
        A position for each crystal, None for None.
    """
    distinct = DistinctStructures(matcher=matcher)
    result: list[int | None] = []
    for position, crystal in enumerate(crystals):
        result.append(None if crystal is None else distinct.add(position, crystal))
        if on_crystal is not None:
            on_crystal(position + 1)
    return result
