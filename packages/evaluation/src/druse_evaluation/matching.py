"""When are two crystals the same structure? MatterGen's tolerances around pymatgen's `StructureMatcher`."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal
from jaxtyping import Float
from pymatgen.analysis.structure_matcher import OrderDisorderElementComparator, StructureMatcher
from pymatgen.core import Element, Structure
from scipy.sparse.csgraph import connected_components

type FormulaKey = tuple[tuple[int, int], ...]

MAX_LATTICE_VECTORS = 100_000
"""Lattice vectors of one length above which two cells are not compared. Cells of up to a hundred atoms stay far below;
needles of 300 Å x 0.5 Å x 0.5 Å, which keep pymatgen busy for minutes, do not."""
MAX_LATTICE_MAPPINGS = 5_000_000
"""Candidate cell-to-cell mappings above which two cells are not compared: some seconds of work for one pair."""


def formula_key(crystal: Crystal) -> FormulaKey:
    """The reduced formula as ``((atomic number, count), ...)``, sorted: equal exactly when reduced formulas are."""
    numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    divisor = math.gcd(*counts.tolist())
    return tuple((int(z), int(n) // divisor) for z, n in zip(numbers, counts, strict=True))


@dataclass(frozen=True, eq=False)
class Comparable:
    """A crystal made ready for many comparisons: its formula and its reduced primitive cell, computed once."""

    key: FormulaKey
    structure: Structure


def as_is(crystal: Crystal) -> Comparable:
    """A crystal that is primitive and reduced already, ready for comparisons."""
    return Comparable(formula_key(crystal), to_pymatgen(crystal))


@runtime_checkable
class Matcher(Protocol):
    """Decides whether two crystals are the same. Only crystals with the same ``key`` are ever compared."""

    @property
    def name(self) -> str:
        """Short name, written beside results."""
        ...

    def prepare(self, crystal: Crystal) -> Comparable:
        """Do once per crystal what every comparison needs."""
        ...

    def fit(self, a: Comparable, b: Comparable) -> bool:
        """True if both are the same structure."""
        ...


@dataclass(frozen=True, kw_only=True)
class OrderedMatcher:
    """Same structure up to symmetry, choice of cell, origin and (``scale``) volume, with tolerances.

    The defaults are MatterGen's matcher for ordered crystals (Zeni et al., Nature 639, 624 (2025)). Equal numbers are
    the same structure without a search. Cells whose comparison would take longer than seconds (see
    ``MAX_LATTICE_MAPPINGS``) match nothing else.

    Attributes:
        ltol: largest relative difference of cell lengths.
        stol: largest root mean square displacement of the sites, as a fraction of (volume per atom)^(1/3).
        angle_tol: largest difference of cell angles in degrees.
        primitive_cell: compare primitive cells.
        scale: bring both to the same volume first.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0
    primitive_cell: bool = True
    scale: bool = True
    name: str = "ordered"
    _pymatgen: StructureMatcher = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        matcher = StructureMatcher(
            ltol=self.ltol,
            stol=self.stol,
            angle_tol=self.angle_tol,
            primitive_cell=self.primitive_cell,
            scale=self.scale,
            attempt_supercell=False,
            allow_subset=False,
        )
        object.__setattr__(self, "_pymatgen", matcher)

    def prepare(self, crystal: Crystal) -> Comparable:
        """The Niggli-reduced primitive cell; the cell as it is where the reduction fails."""
        structure = to_pymatgen(crystal)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                structure = structure.get_reduced_structure(reduction_algo="niggli")
                if self.primitive_cell:
                    structure = structure.get_primitive_structure()
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                structure = to_pymatgen(crystal)
        return Comparable(formula_key(crystal), structure)

    def fit(self, a: Comparable, b: Comparable) -> bool:
        """True if both are the same structure."""
        if a.key != b.key or len(a.structure) != len(b.structure):
            return False
        if _equal(a.structure, b.structure):
            return True
        if not comparable_cells(a.structure, b.structure, ltol=self.ltol, scale=self.scale):
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return bool(self._pymatgen.fit(a.structure, b.structure, skip_structure_reduction=True))
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                return False

    def rms_distance(self, a: Comparable, b: Comparable) -> float | None:
        """How far the sites of two crystals that ``fit`` are apart, after the best superposition.

        Returns:
            Root mean square in units of (volume per atom)^(1/3), pymatgen's ``get_rms_dist``; None without a match.
        """
        if a.key == b.key and _equal(a.structure, b.structure):
            return 0.0
        if a.key != b.key or not comparable_cells(a.structure, b.structure, ltol=self.ltol, scale=self.scale):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = self._pymatgen.get_rms_dist(a.structure, b.structure)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                return None
        return None if found is None else float(found[0])


@dataclass(frozen=True, kw_only=True)
class OrderDisorderMatcher:
    """Same structure, or the same once similar elements may share their sites: two orderings of one alloy are one.

    The matcher of MatterGen's published rates (Zeni et al., Nature 639, 624 (2025)). Crystals that ``OrderedMatcher``
    tells apart are compared again after the first of them has been disordered: elements whose atomic radii differ by at
    most ``max_radius_difference`` of their mean and whose electronegativities by at most
    ``max_electronegativity_difference`` are exchanged for a mixture of them, in the shares that they have in the
    crystal. An element without a known radius or electronegativity mixes with none.

    Attributes:
        max_radius_difference: relative.
        max_electronegativity_difference: on Pauling's scale.
        ordered: decides first; its tolerances also hold for the disordered crystal.
    """

    max_radius_difference: float = 0.3
    max_electronegativity_difference: float = 1.0
    ordered: OrderedMatcher = field(default_factory=OrderedMatcher)
    name: str = "order-disorder"
    _pymatgen: StructureMatcher = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        matcher = StructureMatcher(
            ltol=self.ordered.ltol,
            stol=self.ordered.stol,
            angle_tol=self.ordered.angle_tol,
            primitive_cell=self.ordered.primitive_cell,
            scale=self.ordered.scale,
            attempt_supercell=True,
            allow_subset=True,
            comparator=OrderDisorderElementComparator(),
        )
        object.__setattr__(self, "_pymatgen", matcher)

    def prepare(self, crystal: Crystal) -> Comparable:
        """As ``OrderedMatcher`` does it."""
        return self.ordered.prepare(crystal)

    def fit(self, a: Comparable, b: Comparable) -> bool:
        """True if both are the same structure, or ``b`` is an ordering of the disordered ``a``."""
        if self.ordered.fit(a, b):
            return True
        if a.key != b.key or not comparable_cells(
            a.structure, b.structure, ltol=self.ordered.ltol, scale=self.ordered.scale
        ):
            return False
        mixtures: dict[Any, Any] = {**self.mixtures(a.key)}
        if not mixtures:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                disordered = a.structure.copy()
                disordered.replace_species(mixtures, in_place=True)
                return bool(self._pymatgen.fit(disordered, b.structure))
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                return False

    def mixtures(self, key: FormulaKey) -> dict[str, dict[str, float]]:
        """For every element that mixes with others of the formula the mixture: shares of its elements, summing to 1."""
        elements = [Element.from_Z(z) for z, _ in key]
        similar = np.array([[self._similar(a, b) for b in elements] for a in elements])
        _, group = connected_components(similar, directed=False)
        found = {}
        for label in set(group.tolist()):
            members = np.flatnonzero(group == label)
            total = sum(key[i][1] for i in members)
            if len(members) > 1:
                mixture = {elements[i].symbol: key[i][1] / total for i in members}
                found |= {elements[i].symbol: mixture for i in members}
        return found

    def _similar(self, a: Element, b: Element) -> bool:
        radius_a, radius_b = _radius(a), _radius(b)
        if radius_a is None or radius_b is None or math.isnan(a.X) or math.isnan(b.X):
            return False
        if abs(a.X - b.X) > self.max_electronegativity_difference:
            return False
        return 2 * abs(radius_a - radius_b) / (radius_a + radius_b) <= self.max_radius_difference


def _radius(element: Element) -> float | None:
    """Atomic radius in Å (Slater), None where pymatgen knows none."""
    radius = element.data.get("Atomic radius")
    return float(radius) if isinstance(radius, int | float) else None


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """How far atoms are from where another structure has them.

    Attributes:
        rmsd: root mean square displacement in Å. Where the structures have nothing in common (``matched`` is False),
            the largest displacement that the matcher could have found, ``stol (V / N)^(1/3)``.
        matched: whether the matcher found a mapping of the atoms.
    """

    rmsd: float
    matched: bool


RMSD_TOLERANCES: dict[str, Any] = {"ltol": 0.5, "stol": 0.5, "angle_tol": 10.0, "scale": False, "allow_subset": False}


def displacement(relaxed: Crystal, initial: Crystal) -> Displacement:
    """Root mean square displacement of the atoms between a crystal and its relaxed form, after the best superposition.

    MatterGen's definition: pymatgen's matcher with wide tolerances (lengths 0.5, sites 0.5, angles 10 degrees,
    primitive cells, supercells tried, no scaling) gives a displacement in units of (volume per atom)^(1/3). Two things
    differ from the published code. The unit of length is the mean of both volumes per atom, which also holds for cells
    that are not primitive or set differently (the published code averages lengths and angles of two cells that may be
    set differently, and divides by the number of atoms of one of them). And a pair of cells whose comparison would take
    longer than seconds is compared without looking for smaller cells.

    Args:
        relaxed: the crystal after relaxation.
        initial: the same atoms before.

    Returns:
        The displacement in Å; two structures without a match get the upper bound, as published.
    """
    length = ((relaxed.volume / relaxed.num_atoms + initial.volume / initial.num_atoms) / 2) ** (1 / 3)
    nothing = Displacement(rmsd=RMSD_TOLERANCES["stol"] * length, matched=False)
    if formula_key(relaxed) != formula_key(initial):
        return nothing
    structures = to_pymatgen(relaxed), to_pymatgen(initial)
    if _equal(*structures):
        return Displacement(rmsd=0.0, matched=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reduced = [s.get_reduced_structure(reduction_algo="niggli").get_primitive_structure() for s in structures]
            if comparable_cells(*reduced, ltol=RMSD_TOLERANCES["ltol"], scale=False):
                found = StructureMatcher(primitive_cell=True, attempt_supercell=True, **RMSD_TOLERANCES).get_rms_dist(
                    *structures
                )
            elif len(relaxed) == len(initial) and comparable_cells(
                *structures, ltol=RMSD_TOLERANCES["ltol"], scale=False
            ):
                found = StructureMatcher(primitive_cell=False, **RMSD_TOLERANCES).get_rms_dist(*structures)
            else:
                found = None
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            found = None
    return nothing if found is None else Displacement(rmsd=float(found[0]) * length, matched=True)


def _equal(a: Structure, b: Structure) -> bool:
    """Whether two structures have the same cell and the same atoms in the same order, to the last bit."""
    return (
        np.array_equal(a.lattice.matrix, b.lattice.matrix)
        and a.species_and_occu == b.species_and_occu
        and np.array_equal(a.frac_coords, b.frac_coords)
    )


def comparable_cells(a: Structure, b: Structure, *, ltol: float, scale: bool) -> bool:
    """Whether the search for mappings between the two cells ends within seconds."""
    cell_a, cell_b = a.lattice.matrix, b.lattice.matrix
    if scale:
        cell_b = cell_b * (a.volume / b.volume) ** (1 / 3)
    candidates = [_n_vectors(cell_a, cell_b, ltol), _n_vectors(cell_b, cell_a, ltol)]
    return all(n.max() <= MAX_LATTICE_VECTORS and n.prod() <= MAX_LATTICE_MAPPINGS for n in candidates)


def _n_vectors(
    searched: Float[np.ndarray, "3 3"], target: Float[np.ndarray, "3 3"], ltol: float
) -> Float[np.ndarray, "3"]:
    """Expected number of vectors of one lattice that are as long as each of the three of another.

    A shell of radius l and thickness 2 ltol l holds about 8 pi ltol l^3 / V lattice vectors.
    """
    lengths = np.linalg.norm(target, axis=1)
    return 1 + 8 * np.pi * ltol * lengths**3 / abs(np.linalg.det(searched))
