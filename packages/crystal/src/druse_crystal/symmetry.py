"""Space groups, and the standard cells of a crystal: conventional, primitive, Niggli, and the form the model learns.

Symmetry is found by spglib (Togo, Shinohara, Tanaka, Sci. Technol. Adv. Mater. Meth. 4, 2384822, 2024).
"""

import functools
import os
import warnings
from dataclasses import dataclass

import numpy as np
import spglib
import torch

from druse_crystal.convert import from_pymatgen, to_pymatgen
from druse_crystal.crystal import Crystal
from druse_crystal.lattice import symmetric_form
from druse_crystal.neighbors import min_distance

os.environ.setdefault("SPGLIB_WARNING", "OFF")  # its library prints that it found nothing, which it also returns

SYMPREC = 0.1  # Å
ANGLE_TOLERANCE = 5.0  # degrees
PRIMITIVE_TOLERANCE = 0.25  # Å, how far translated atoms may lie apart; the value of pymatgen
MAX_LATTICE_POINTS = 100_000  # in a sphere of the longest edge: more means a needle or a sheet, no crystal

_LAST_NUMBER = {  # of the space groups of each crystal system
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}


@dataclass(frozen=True, slots=True)
class SpaceGroup:
    """A space group.

    Attributes:
        number: 1 to 230, of the International Tables.
        symbol: short Hermann-Mauguin symbol, e.g. ``Fm-3m``.
        crystal_system: ``triclinic``, ``monoclinic``, ``orthorhombic``, ``tetragonal``, ``trigonal``, ``hexagonal`` or
            ``cubic``.
    """

    number: int
    symbol: str
    crystal_system: str


def crystal_system(number: int) -> str:
    """Crystal system of a space group number.

    Raises:
        ValueError: if the number is not from 1 to 230.
    """
    for system, last in _LAST_NUMBER.items():
        if 1 <= number <= last:
            return system
    raise ValueError(f"there is no space group {number}, the numbers go from 1 to 230")


def space_group(crystal: Crystal, *, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE) -> SpaceGroup:
    """Space group of a crystal; ``P1`` when none can be found (overlapping atoms, a pathological cell).

    Args:
        crystal: the structure.
        symprec: how far in Å an atom may be from its symmetric place.
        angle_tolerance: how far in degrees an angle of the lattice may be from its symmetric value.
    """
    dataset = _dataset(crystal, symprec, angle_tolerance)
    if dataset is None:
        return SpaceGroup(number=1, symbol="P1", crystal_system="triclinic")
    number = int(dataset.number)
    return SpaceGroup(number=number, symbol=str(dataset.international), crystal_system=crystal_system(number))


@functools.cache
def contains_group(group: int, other: int) -> bool:
    """Whether a space group is another one or contains it, by their numbers, 1 to 230."""
    from pymatgen.symmetry.groups import SpaceGroup as Tabulated

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a better way to name a group, which it does not offer for numbers
        return group == other or Tabulated.from_int_number(group).is_supergroup(Tabulated.from_int_number(other))


def symmetrized(crystal: Crystal, *, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE) -> Crystal:
    """The conventional cell, with atoms and lattice moved to where the space group wants them.

    Returns the crystal itself when no symmetry can be found.

    Args:
        crystal: the structure.
        symprec: how far in Å an atom may be from its symmetric place.
        angle_tolerance: how far in degrees an angle of the lattice may be from its symmetric value; below 0 as far as
            ``symprec`` allows.
    """
    dataset = _dataset(crystal, symprec, angle_tolerance)
    if dataset is None:
        return crystal
    try:
        return Crystal(
            lattice=dataset.std_lattice,
            frac_coords=np.asarray(dataset.std_positions),
            atomic_numbers=np.asarray(dataset.std_types),
        )
    except ValueError:
        return crystal


def primitive(crystal: Crystal) -> Crystal:
    """A primitive cell: translations that map the crystal onto itself within 0.25 Å are divided out.

    Returns the crystal itself when its cell is primitive already, so long or flat that no search is possible, or when
    atoms are so close together that a translation within the tolerance says nothing.
    """
    if crystal.num_atoms == 1 or not _searchable(crystal):
        return crystal
    if min_distance(crystal) < 2 * PRIMITIVE_TOLERANCE:
        return crystal
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = from_pymatgen(to_pymatgen(crystal).get_primitive_structure(tolerance=PRIMITIVE_TOLERANCE))
    except (ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError):
        return crystal
    return found if found.num_atoms < crystal.num_atoms else crystal


def niggli(crystal: Crystal) -> Crystal:
    """The same crystal in its Niggli cell: the three shortest edges, right-handed. Atoms stay where they are in space.

    Returns the crystal in its own (right-handed) cell when the reduction does not converge.
    """
    crystal = _right_handed(crystal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reduced = spglib.niggli_reduce(crystal.lattice)
        except Exception:  # spglib signals failure in several ways, depending on its version
            return crystal
    if reduced is None or not np.isfinite(reduced).all():
        return crystal
    steps = np.rint(np.linalg.solve(crystal.lattice.T, np.asarray(reduced).T).T)  # reduced = steps @ lattice
    if abs(abs(np.linalg.det(steps)) - 1) > 1e-6:
        return crystal
    lattice = steps @ crystal.lattice  # exactly the old lattice, without the rounding of the reduction
    frac_coords = crystal.frac_coords @ np.rint(np.linalg.inv(steps))
    return _right_handed(Crystal(lattice=lattice, frac_coords=frac_coords, atomic_numbers=crystal.atomic_numbers))


def standardize(crystal: Crystal) -> Crystal:
    """The form that the model learns: primitive, Niggli-reduced, with the symmetric lattice of the polar decomposition.

    MatterGen (arXiv:2312.03687), appendix A.5. The crystal turns in space; lengths, angles and chirality stay.
    """
    reduced = niggli(primitive(niggli(crystal)))
    return reduced.replace(lattice=symmetric_form(torch.tensor(reduced.lattice)).numpy())


def _right_handed(crystal: Crystal) -> Crystal:
    """The same atoms in space with ``det(lattice) > 0``, so that the polar decomposition holds no mirror."""
    if np.linalg.det(crystal.lattice) > 0:
        return crystal
    return crystal.replace(lattice=-crystal.lattice, frac_coords=-crystal.frac_coords)


def _searchable(crystal: Crystal) -> bool:
    longest = np.linalg.norm(crystal.lattice, axis=1).max()
    return bool(4 / 3 * np.pi * longest**3 / crystal.volume < MAX_LATTICE_POINTS)


def _dataset(crystal: Crystal, symprec: float, angle_tolerance: float):
    # spglib needs a compact cell; the space group does not depend on it
    return spglib_dataset(niggli(crystal), symprec=symprec, angle_tolerance=angle_tolerance)


def spglib_dataset(crystal: Crystal, *, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE):
    """What spglib finds in the crystal's own cell (``spglib.SpglibDataset``); None when it finds nothing."""
    if not _searchable(crystal):
        return None
    cell = (crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return spglib.get_symmetry_dataset(cell, symprec=symprec, angle_tolerance=angle_tolerance)
        except Exception:  # spglib signals failure in several ways, depending on its version
            return None
