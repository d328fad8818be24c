"""What the published MatterGen models were trained on, in numbers: the dataset Alex-MP-20.

Structures of the Materials Project (v2022.10.28) and Alexandria, relaxed with PBE: at most 20 atoms in the primitive
cell, less than 0.1 eV/atom above the hull, no technetium, promethium, noble gases or elements beyond bismuth.

Sources: C. Zeni et al., Nature 639, 624 (2025), and the model card of github.com/microsoft/mattergen. Its file
``num_atoms_distribution.py`` has the shares of each number of atoms; all of them are whole numbers over 607,684.
"""

from collections.abc import Mapping

MAX_ATOMS = 20
"""Atoms in the primitive cell, at most."""

MAX_ENERGY_ABOVE_HULL = 0.1
"""eV/atom; all structures are below it."""

NUM_ATOMS: Mapping[int, int] = {
    1: 140,
    2: 1_704,
    3: 11_754,
    4: 99_438,
    5: 28_367,
    6: 47_448,
    7: 16_558,
    8: 69_908,
    9: 29_767,
    10: 76_693,
    11: 21_739,
    12: 88_669,
    13: 3_648,
    14: 17_397,
    15: 12_292,
    16: 27_183,
    17: 792,
    18: 23_517,
    19: 4_262,
    20: 26_408,
}
"""How many of the 607,684 structures have each number of atoms."""

_ABSENT = frozenset({2, 10, 18, 36, 43, 54, 61})  # He, Ne, Ar, Kr, Tc, Xe, Pm

ELEMENTS: tuple[int, ...] = tuple(z for z in range(1, 84) if z not in _ABSENT)
"""Atomic numbers of the 76 elements, rising."""
