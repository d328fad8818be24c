"""Site symmetry: how all atoms of a cell follow from a few of them, and what these few are free to do.

An operation of the space group takes fractional coordinates ``x`` to ``W x + w``. The atoms that it makes of one atom
are its orbit; the operations that leave an atom where it is allow it to move only in a subspace. So any crystal with
the same group and the same occupied Wyckoff positions is ``x_i = origin_i + W_i P_i d``, with one free displacement
``d`` for each orbit (International Tables for Crystallography, vol. A, chapter 1.4).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from druse_crystal.crystal import Crystal
from druse_crystal.symmetry import ANGLE_TOLERANCE, SYMPREC, spglib_dataset


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SiteSymmetry:
    """The occupied sites of one cell.

    Attributes:
        space_group: number, 1 to 230.
        origin: (n, 3) fractional coordinates with no displacement.
        orbit: (n,) for each atom the first atom of its orbit.
        operations: (n, 3, 3) ``W_i``: what takes a displacement of the first atom to one of this atom.
        free: (n, 3, 3) ``P_i``: projector onto the displacements that the site of the first atom allows.
        rotations: (g, 3, 3) the point group, as integer matrices in this cell.
    """

    space_group: int
    origin: Float64[np.ndarray, "n 3"]
    orbit: Int64[np.ndarray, " n"]
    operations: Float64[np.ndarray, "n 3 3"]
    free: Float64[np.ndarray, "n 3 3"]
    rotations: Float64[np.ndarray, "g 3 3"]

    @property
    def num_atoms(self) -> int:
        """Atoms in the cell."""
        return len(self.orbit)

    @property
    def orbit_sizes(self) -> tuple[int, ...]:
        """Number of atoms of each orbit."""
        return tuple(np.unique(self.orbit, return_counts=True)[1].tolist())


def without_symmetry(num_atoms: int) -> SiteSymmetry:
    """The sites of a crystal in P1: each atom is an orbit of its own, at the origin and free to go anywhere."""
    unit = np.tile(np.eye(3), (num_atoms, 1, 1))
    return SiteSymmetry(
        space_group=1,
        origin=np.zeros((num_atoms, 3)),
        orbit=np.arange(num_atoms),
        operations=unit,
        free=unit,
        rotations=np.eye(3)[None],
    )


def find_site_symmetry(
    crystal: Crystal, *, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE
) -> SiteSymmetry | None:
    """The site symmetry of a crystal in its own cell, its atoms moved to their ideal places.

    Args:
        crystal: in a cell without long edges (``standardize``).
        symprec: how far in Å an atom may be from its symmetric place.
        angle_tolerance: how far in degrees an angle of the lattice may be from its symmetric value.

    Returns:
        None where spglib finds no symmetry at all, or operations that do not map the atoms onto each other.
    """
    dataset = spglib_dataset(crystal, symprec=symprec, angle_tolerance=angle_tolerance)
    if dataset is None:
        return None
    rotations = np.asarray(dataset.rotations, dtype=np.float64)
    x = crystal.frac_coords
    moved = np.einsum("gij,nj->gni", rotations, x) + np.asarray(dataset.translations)[:, None]
    apart = moved[:, :, None] - x
    apart -= np.rint(apart)
    distance = np.linalg.norm(apart @ crystal.lattice, axis=-1)
    image = distance.argmin(-1)  # (g, n): the atom to which an operation takes an atom
    n = crystal.num_atoms
    same = crystal.atomic_numbers[image] == crystal.atomic_numbers
    if not same.all() or (np.sort(image, axis=1) != np.arange(n)).any():
        return None
    orbit = image.min(0)
    origin, operations, free = np.empty((n, 3)), np.empty((n, 3, 3)), np.empty((n, 3, 3))
    for first in np.unique(orbit):
        keeps = image[:, first] == first
        at_home = moved[keeps, first]
        place = (at_home - np.rint(at_home - x[first])).mean(0)
        for atom in np.flatnonzero(orbit == first):
            g = int(np.flatnonzero(image[:, first] == atom)[0])
            origin[atom] = (rotations[g] @ place + dataset.translations[g]) % 1.0
            operations[atom], free[atom] = rotations[g], rotations[keeps].mean(0)
    return SiteSymmetry(
        space_group=int(dataset.number),
        origin=origin,
        orbit=orbit.astype(np.int64),
        operations=operations,
        free=free,
        rotations=np.unique(rotations, axis=0),
    )
