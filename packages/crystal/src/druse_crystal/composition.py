"""Compositions: formulas and chemical systems of crystals, in pymatgen's words."""

import warnings
from collections import Counter

from pymatgen.core import Composition, Element

from druse_crystal.crystal import Crystal


def composition(crystal: Crystal) -> Composition:
    """pymatgen ``Composition`` of the cell."""
    return Composition({Element.from_Z(int(z)): n for z, n in Counter(crystal.atomic_numbers.tolist()).items()})


def reduced_formula(crystal: Crystal) -> str:
    """Reduced formula as pymatgen writes it, e.g. ``Li2O``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # pymatgen, of every noble gas
        return composition(crystal).reduced_formula


def chemical_system(crystal: Crystal) -> str:
    """Element symbols in alphabetical order, joined by hyphens, e.g. ``Li-O``."""
    return composition(crystal).chemical_system
