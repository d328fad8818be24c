"""A crystal with other elements in the same places."""

from collections.abc import Mapping

import numpy as np
from druse_crystal import Crystal

from druse_baselines.proposer import element_counts
from druse_baselines.volumes import AtomicVolumes


def exchange(parent: Crystal, replacements: Mapping[int, int], volumes: AtomicVolumes) -> Crystal:
    """Exchange elements, all atoms of an element at once, and rescale the cell.

    Atoms keep their fractional coordinates and the cell its shape; the volume grows with the sizes of the atoms.

    Args:
        parent: the crystal, which stays as it is.
        replacements: atomic number to atomic number; elements that are not named stay.
        volumes: sizes of the atoms, of old and new elements.

    Returns:
        the new crystal.

    Raises:
        ValueError: if the volume of an element is unknown.
    """
    numbers = np.array([replacements.get(z, z) for z in parent.atomic_numbers.tolist()])
    child = parent.replace(atomic_numbers=numbers)
    growth = volumes.total(element_counts(child)) / volumes.total(element_counts(parent))
    return child.replace(lattice=parent.lattice * growth ** (1 / 3))
