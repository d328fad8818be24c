"""Structure types: is a crystal a known one once its elements have lost their names?"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from druse_crystal.crystal import Crystal
from jaxtyping import Float, Int

from druse_evaluation.matching import Comparable, FormulaKey, OrderedMatcher, as_is, comparable_cells, formula_key
from druse_evaluation.renaming import Undecided, renamed_match

type AnonymousKey = tuple[int, ...]

SLACK = 1e-6
"""By how much the index is wider than the matcher's tolerances, so that rounding never decides."""


def anonymous_key(key: FormulaKey) -> AnonymousKey:
    """The counts of a reduced formula without the elements, rising: ``(1, 1, 3)`` for CaTiO3 and for KNbO3."""
    return tuple(sorted(count for _, count in key))


class KnownPrototypes:
    """Known crystals whose elements have lost their names: does one of them have the structure of a given crystal?

    A crystal that matches is a decoration of a known prototype, however new its formula. It matches if the elements of
    the known crystal can be renamed one to one so that ``matcher`` finds the two the same, which is pymatgen's
    ``StructureMatcher.fit_anonymous``.

    Only crystals with the same anonymous formula and as many atoms in the primitive cell are compared, and of these
    only those for whose cell the matcher would find at least one mapping; this leaves out nothing that could match.
    Those whose cell is most alike are compared first.

    Args:
        crystals: the known crystals.
        ids: a name for each; positions if not given.
        matcher: its tolerances decide.
        standard_form: the known crystals are primitive and Niggli-reduced already, which saves doing it.
        prune: False compares all with the same anonymous formula, which gives the same answers later.

    Raises:
        ValueError: if there are not as many ids as crystals.
    """

    def __init__(
        self,
        crystals: Sequence[Crystal],
        ids: Sequence[Hashable] | None = None,
        *,
        matcher: OrderedMatcher | None = None,
        standard_form: bool = False,
        prune: bool = True,
    ):
        self.ids = list(range(len(crystals))) if ids is None else list(ids)
        if len(self.ids) != len(crystals):
            raise ValueError(f"{len(self.ids)} ids for {len(crystals)} known crystals")
        self.matcher = matcher or OrderedMatcher()
        self.standard_form = standard_form
        self.prune = prune
        self._crystals = crystals
        self._positions = {str(name): i for i, name in reversed(list(enumerate(self.ids)))}
        self._by_formula: dict[AnonymousKey, list[int]] = defaultdict(list)
        for i, crystal in enumerate(crystals):
            self._by_formula[anonymous_key(formula_key(crystal))].append(i)
        self._groups: dict[AnonymousKey, dict[int, _Group]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def first_match(self, crystal: Crystal | Comparable) -> Hashable | None:
        """Id of a known crystal of the same structure type, None if its structure type is new.

        Raises:
            Undecided: if none is found, and too many renamings of one of them would have to be tried to exclude it.
        """
        return next((self.ids[position] for position, _ in self._matches(crystal)), None)

    def nearest(self, crystal: Crystal | Comparable) -> "Prototype | None":
        """What ``first_match`` finds, with how far the crystal is from it; None if its structure type is new.

        Raises:
            Undecided: as ``first_match`` does.
        """
        if isinstance(crystal, Crystal):
            crystal = self.matcher.prepare(crystal)
        for position, renamed in self._matches(crystal):
            return Prototype(id=self.ids[position], rms=self.matcher.rms_distance(crystal, renamed))
        return None

    def distance(self, crystal: Crystal | Comparable, name: str) -> float | None:
        """How far a crystal is from the known one of that name, as it is called: see ``Prototype.rms``."""
        if isinstance(crystal, Crystal):
            crystal = self.matcher.prepare(crystal)
        position = self._positions.get(name)
        return None if position is None else self.matcher.rms_distance(crystal, self._prepare(position))

    def matches(self, crystal: Crystal | Comparable) -> list[Hashable]:
        """Ids of all known crystals of the same structure type, those with the most similar cell first.

        Raises:
            Undecided: if too many renamings of one of them would have to be tried to know.
        """
        return [self.ids[position] for position, _ in self._matches(crystal)]

    def _matches(self, crystal: Crystal | Comparable) -> Iterator[tuple[int, Comparable]]:
        """Positions of the known crystals that match, and these with their elements renamed."""
        if isinstance(crystal, Crystal):
            crystal = self.matcher.prepare(crystal)
        group = self._group(anonymous_key(crystal.key)).get(len(crystal.structure))
        if group is None:
            return
        order = group.nearest_first(crystal) if self.prune else range(len(group.members))
        mappable = _mappable(crystal, self.matcher) if self.prune else lambda known: True
        undecided: Undecided | None = None
        for i in order:
            position, known = group.members[i]
            try:
                renamed = renamed_match(crystal, known, self.matcher) if mappable(known) else None
                if renamed is not None:
                    yield position, renamed
            except Undecided as reason:
                undecided = Undecided(f"whether {self.ids[position]} has its structure is not known: {reason}")
        if undecided is not None:
            raise undecided

    def _group(self, key: AnonymousKey) -> dict[int, "_Group"]:
        """Known crystals with this anonymous formula, by the number of atoms of their primitive cell."""
        if key not in self._groups:
            by_size: dict[int, list[tuple[int, Comparable]]] = defaultdict(list)
            for i in self._by_formula.get(key, ()):
                known = self._prepare(i)
                by_size[len(known.structure)].append((i, known))
            self._groups[key] = {size: _Group(members) for size, members in by_size.items()}
        return self._groups[key]

    def _prepare(self, position: int) -> Comparable:
        crystal = self._crystals[position]
        return as_is(crystal) if self.standard_form else self.matcher.prepare(crystal)


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """A known crystal whose structure type another one has.

    Attributes:
        id: its name.
        rms: root mean square distance of the sites after the best superposition, the elements renamed and the volumes
            made equal (if the matcher does so), in units of (volume per atom)^(1/3); None if it could not be had.
    """

    id: Hashable
    rms: float | None


class _Group:
    """Known crystals of one anonymous formula and size of cell, with their positions among all."""

    def __init__(self, members: Sequence[tuple[int, Comparable]]):
        self.members = members
        self._shapes = np.stack([_shape(known) for _, known in members])

    def nearest_first(self, crystal: Comparable) -> Int[np.ndarray, " m"]:
        """Members in the order of how alike the shapes of the cells are."""
        return np.argsort(((self._shapes - _shape(crystal)) ** 2).sum(axis=1), kind="stable")


def _shape(crystal: Comparable) -> Float[np.ndarray, "6"]:
    """Logarithms of the lengths for a cell of volume 1, and the angles in radians."""
    lattice = crystal.structure.lattice
    return np.concatenate([np.log(lattice.lengths) - math.log(lattice.volume) / 3, np.radians(lattice.angles)])


def _mappable(crystal: Comparable, matcher: OrderedMatcher) -> Callable[[Comparable], bool]:
    """Whether the lattice of ``crystal`` has a basis like the cell of a known crystal, within the matcher's tolerances.

    That is what pymatgen's matcher asks before it looks at the atoms: three lengths and three angles that agree, of
    vectors that span the whole lattice.
    """
    widest = (1 + matcher.ltol) * (1 + SLACK)
    tolerance = math.radians(matcher.angle_tol) + SLACK
    searched = _cell(crystal, matcher)
    radius = 0.0
    vectors = coefficients = norms = directions = np.empty((0, 3))

    def mappable(known: Comparable) -> bool:
        nonlocal radius, vectors, coefficients, norms, directions
        if np.array_equal(known.structure.lattice.matrix, crystal.structure.lattice.matrix):
            return True
        if not comparable_cells(crystal.structure, known.structure, ltol=matcher.ltol, scale=matcher.scale):
            return False  # the matcher would not search either, and there may be too many vectors to look at
        target = _cell(known, matcher)
        lengths = np.linalg.norm(target, axis=1)
        if widest * lengths.max() > radius:
            radius = 1.5 * widest * lengths.max()
            vectors, coefficients = _short_vectors(searched, radius)
            norms = np.linalg.norm(vectors, axis=1)
            directions = vectors / norms[:, None]
        chosen = [np.flatnonzero((norms < widest * length) & (norms * widest > length)) for length in lengths]
        if not all(map(len, chosen)):
            return False
        unit = target / lengths[:, None]
        gamma, beta, alpha = (
            abs(
                np.arccos(np.clip(directions[chosen[j]] @ directions[chosen[k]].T, -1, 1))
                - math.acos(min(1.0, max(-1.0, float(unit[j] @ unit[k]))))
            )
            < tolerance
            for j, k in ((0, 1), (0, 2), (1, 2))
        )
        bases = np.nonzero(gamma[:, :, None] & beta[:, None, :] & alpha[None, :, :])
        found = np.stack([coefficients[chosen[j][bases[j]]] for j in range(3)], axis=1)
        return bool((abs(abs(np.linalg.det(found)) - 1) < 0.5).any())

    return mappable


def _cell(crystal: Comparable, matcher: OrderedMatcher) -> Float[np.ndarray, "3 3"]:
    """Lattice vectors in rows: of volume 1 if the matcher brings both crystals to the same volume, else in Å."""
    lattice = crystal.structure.lattice
    return lattice.matrix / (np.cbrt(lattice.volume) if matcher.scale else 1.0)


def _short_vectors(
    lattice: Float[np.ndarray, "3 3"], radius: float
) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 3"]]:
    """All lattice vectors but zero that are no longer than ``radius``, shortest first, and their coefficients."""
    reach = np.floor(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0) + SLACK).astype(int)
    grid = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    coefficients = np.stack(grid, axis=-1).reshape(-1, 3).astype(float)
    vectors = coefficients @ lattice
    norms = np.linalg.norm(vectors, axis=1)
    order = np.argsort(norms, kind="stable")
    order = order[(norms[order] > 0) & (norms[order] <= radius)]
    return vectors[order], coefficients[order]
