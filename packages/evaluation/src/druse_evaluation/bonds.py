"""Bonds of a crystal: which atoms are neighbours, how far apart, how many, and whether they hold together in 3D."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from druse_crystal.batch import CrystalBatch
from druse_crystal.convert import to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.neighbors import min_distance, neighbors
from jaxtyping import Bool, Float64, Int64

from druse_evaluation.validity import MIN_DISTANCE

BOND = 1.2
"""Two atoms at most this multiple of the sum of their covalent radii apart are bonded. Layers and molecules held
together by van der Waals forces lie beyond it (1.26 in solid iodine, 1.32 in Bi2Te3), long ionic bonds below it."""
LONGEST_BOND = 1.35
"""An atom with nobody within ``BOND`` is bonded to its nearest neighbours, if they are within this multiple: the bonds
of lithium hydride have 1.28."""
EQUALLY_NEAR = 1.1
"""Of such an atom, the neighbours that are at most this multiple of the shortest distance away."""
MAX_ATOMS = 500
"""Cells with more atoms are not searched for bonds, so that a test of one crystal stays within seconds."""
MAX_BONDS = 2000
"""Crystals with more bonds have no dimensionality, for the same reason."""


class OverlapError(ValueError):
    """Two atoms are at nearly the same place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bonds:
    """Directed bonds, ``e`` of them: each bond stands here twice, once for either atom.

    Attributes:
        crystal: whose.
        atom: (e,) whose bond it is, ascending.
        neighbor: (e,) the atom at its other end.
        images: (e, 3) lattice translations of the other end.
        lengths: (e,) in Å.
        nearest: (n,) in Å, for each atom the distance to its nearest neighbour, in units of the sum of their covalent
            radii; whether that is a bond or not. Infinite where none is within ``LONGEST_BOND``.
        nearest_atom: (n,) that neighbour, -1 where there is none.
    """

    crystal: Crystal
    atom: Int64[np.ndarray, " e"]
    neighbor: Int64[np.ndarray, " e"]
    images: Int64[np.ndarray, "e 3"]
    lengths: Float64[np.ndarray, " e"]
    nearest: Float64[np.ndarray, " n"]
    nearest_atom: Int64[np.ndarray, " n"]

    def coordination(self) -> Int64[np.ndarray, " n"]:
        """How many bonds each atom has."""
        return np.bincount(self.atom, minlength=self.crystal.num_atoms)

    def farthest_nearest(self) -> dict[tuple[int, int], float]:
        """Of the atoms of one element whose nearest neighbour is of another, the longest such distance in Å.

        The keys are both atomic numbers, that of the neighbour second; atoms without any neighbour have no entry.
        """
        numbers = self.crystal.atomic_numbers
        found: dict[tuple[int, int], float] = {}
        for i in np.flatnonzero(self.nearest_atom >= 0).tolist():
            pair = int(numbers[i]), int(numbers[self.nearest_atom[i]])
            found[pair] = max(float(self.nearest[i]), found.get(pair, 0.0))
        return found

    def shortest(self) -> dict[tuple[int, int], float]:
        """The shortest bond in Å between each pair of elements, by their atomic numbers, the smaller first."""
        numbers = self.crystal.atomic_numbers
        found: dict[tuple[int, int], float] = {}
        for i, j, length in zip(self.atom.tolist(), self.neighbor.tolist(), self.lengths.tolist(), strict=True):
            a, b = sorted((int(numbers[i]), int(numbers[j])))
            found[a, b] = min(length, found.get((a, b), np.inf))
        return found


def find_bonds(crystal: Crystal) -> Bonds:
    """The bonds of a crystal by distance.

    Distances are measured in sums of covalent radii (B. Cordero et al., Dalton Trans. 2008, 2832). Two atoms are
    bonded up to ``BOND``; an atom with nobody as near is bonded to its nearest neighbours. Two metal atoms are not, if
    both have a non-metal bonded: cations touch without a bond between them. Metals are pymatgen's.

    Raises:
        OverlapError: for two atoms closer than 0.5 Å.
        ValueError: for a cell of more than ``MAX_ATOMS`` atoms, or one so flat that its neighbours cannot be counted.
    """
    n = crystal.num_atoms
    if n > MAX_ATOMS:
        raise ValueError(f"{n} atoms are more than {MAX_ATOMS}")
    closest = min_distance(crystal)
    if closest < MIN_DISTANCE:
        raise OverlapError(f"two atoms are {closest:.2f} Å apart")
    radii, metal = _radii_and_metals()
    numbers = crystal.atomic_numbers
    cutoff = float(2 * LONGEST_BOND * radii[numbers].max())
    pairs = neighbors(CrystalBatch.from_crystals([crystal]), cutoff=cutoff)
    atom, other = pairs.target.numpy(), pairs.source.numpy()
    lengths = pairs.distances.numpy().astype(np.float64)
    scaled = lengths / (radii[numbers[atom]] + radii[numbers[other]])
    near = scaled <= LONGEST_BOND
    atom, other, lengths, scaled = atom[near], other[near], lengths[near], scaled[near]
    images = pairs.shifts.numpy()[near]

    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, atom, scaled)
    nearest_atom = np.full(n, -1, dtype=np.int64)
    first = scaled <= nearest[atom]
    nearest_atom[atom[first]] = other[first]
    reach = np.where(nearest > BOND, np.minimum(EQUALLY_NEAR * nearest, LONGEST_BOND), BOND)
    bonded = scaled <= np.maximum(reach[atom], reach[other])
    is_metal = metal[numbers]
    has_nonmetal = np.zeros(n, dtype=bool)
    has_nonmetal[atom[bonded & ~is_metal[other]]] = True
    cation = is_metal & has_nonmetal
    bonded &= ~(cation[atom] & cation[other])
    found = nearest_atom >= 0
    nearest[found] *= radii[numbers[found]] + radii[numbers[nearest_atom[found]]]
    return Bonds(
        crystal=crystal,
        atom=atom[bonded],
        neighbor=other[bonded],
        images=images[bonded],
        lengths=lengths[bonded],
        nearest=nearest,
        nearest_atom=nearest_atom,
    )


def dimensionality(bonds: Bonds) -> int:
    """In how many directions the bonds go on for ever: 3 a framework, 2 layers, 1 chains, 0 molecules or lone atoms.

    The definition of P. M. Larsen et al., Phys. Rev. Mater. 3, 034003 (2019), as pymatgen computes it, for these
    bonds; of several components that with the most directions decides.

    Raises:
        ValueError: for more than ``MAX_BONDS`` bonds.
    """
    from pymatgen.analysis.dimensionality import get_dimensionality_larsen
    from pymatgen.analysis.graphs import StructureGraph

    if len(bonds.atom) > 2 * MAX_BONDS:
        raise ValueError(f"{len(bonds.atom) // 2} bonds are more than {MAX_BONDS}")
    graph = StructureGraph.from_empty_graph(to_pymatgen(bonds.crystal))
    ends = zip(bonds.atom.tolist(), bonds.neighbor.tolist(), map(tuple, bonds.images.tolist()), strict=True)
    for atom, neighbor, image in ends:
        if atom < neighbor or (atom == neighbor and image > (0, 0, 0)):  # each bond once
            graph.graph.add_edge(atom, neighbor, to_jimage=image)
    return int(get_dimensionality_larsen(graph))


def all_metal(crystal: Crystal) -> bool:
    """Whether pymatgen calls every element of the crystal a metal."""
    _, metal = _radii_and_metals()
    return bool(metal[crystal.atomic_numbers].all())


def covalent_length(a: int, b: int) -> float:
    """Sum of the covalent radii of two elements in Å, by their atomic numbers."""
    radii, _ = _radii_and_metals()
    return float(radii[a] + radii[b])


def metals_among(a: int, b: int) -> int:
    """How many of two elements are metals."""
    _, metal = _radii_and_metals()
    return int(metal[a]) + int(metal[b])


@cache
def _radii_and_metals() -> tuple[Float64[np.ndarray, " z"], Bool[np.ndarray, " z"]]:
    """Covalent radii in Å and whether an element is a metal, by atomic number; nothing has the number 0."""
    from ase.data import covalent_radii
    from pymatgen.core import Element

    metal = [False] + [bool(Element.from_Z(z).is_metal) for z in range(1, 119)]
    return np.array(covalent_radii[:119], dtype=np.float64), np.array(metal)
