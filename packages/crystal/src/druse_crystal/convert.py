"""Crystals as objects of pymatgen and ASE, and back."""

import ase
import numpy as np
from pymatgen.core import DummySpecies, Element, Lattice, Structure

from druse_crystal.crystal import MAX_LENGTH, Crystal
from druse_crystal.refusal import DISORDERED


def to_pymatgen(crystal: Crystal) -> Structure:
    """pymatgen ``Structure`` with the same lattice, coordinates and order of atoms."""
    species = [Element.from_Z(int(z)) for z in crystal.atomic_numbers]
    return Structure(Lattice(crystal.lattice), species, crystal.frac_coords)


def from_pymatgen(structure: Structure) -> Crystal:
    """A pymatgen structure as a crystal; oxidation states, spins and isotopes (D, T) are dropped.

    Raises:
        ValueError: if a site is shared or partly empty, holds something that is no element, or the structure is no
            valid ``Crystal`` (see there).
    """
    for i, site in enumerate(structure):
        occupancy = site.species.num_atoms
        if len(site.species) != 1 or abs(occupancy - 1) > 1e-3:
            raise ValueError(
                f"site {i + 1} ({site.species_string}) is {DISORDERED}: order the structure first, "
                "for example with pymatgen's OrderDisorderedStructureTransformation"
            )
        if isinstance(site.specie, DummySpecies):
            raise ValueError(f"site {i + 1} holds {site.specie.symbol!r}, which is no chemical element")
    return Crystal(
        lattice=structure.lattice.matrix,
        frac_coords=structure.frac_coords.reshape(-1, 3),
        atomic_numbers=np.array([int(site.specie.Z) for site in structure], dtype=np.int64),
    )


def to_ase(crystal: Crystal) -> ase.Atoms:
    """ASE ``Atoms``, periodic in all three directions, with the same lattice, coordinates and order of atoms."""
    return ase.Atoms(
        numbers=crystal.atomic_numbers, scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True
    )


def from_ase(atoms: ase.Atoms) -> Crystal:
    """ASE ``Atoms`` as a crystal: positions, cell and numbers only.

    Raises:
        ValueError: if the atoms are not periodic in three directions or are no valid ``Crystal`` (see there).
    """
    if not atoms.pbc.all():
        raise ValueError("the structure is not periodic in all three directions: give it a cell and pbc='T T T'")
    cell = np.array(atoms.cell.array, dtype=np.float64)
    if not (np.abs(cell) <= MAX_LENGTH).all() or abs(np.linalg.det(cell)) == 0:
        frac_coords = np.zeros((len(atoms), 3))  # Crystal names what is wrong with the cell
    else:
        frac_coords = np.linalg.solve(cell.T, atoms.positions.T).T
    return Crystal(lattice=cell, frac_coords=frac_coords, atomic_numbers=atoms.numbers)
