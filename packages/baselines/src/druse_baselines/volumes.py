"""How much room an atom of each element takes in known crystals."""

from collections.abc import Mapping, Sequence

import numpy as np
from druse_crystal import Crystal
from druse_crystal.crystal import MAX_ATOMIC_NUMBER
from jaxtyping import Float64
from pymatgen.core import Element

SMALLEST = 2.0  # Å³ per atom: less than half the volume that the densest crystals leave an atom
TOWARDS_MEAN = 1e-2  # weight of the mean volume per atom against one crystal; decides only for elements hardly seen


class AtomicVolumes:
    """One volume for each element, so that their sum is close to the cell's volume.

    Fitted to known crystals by least squares of the *relative* error of the volume, with a lower bound. For one-element
    substitutions the ratio of two such sums tells how the cell swells or shrinks: see the package's README.
    """

    def __init__(self, crystals: Sequence[Crystal]):
        """Fit the volumes.

        Args:
            crystals: known crystals; an element is known if one of them holds it.

        Raises:
            ValueError: if there is no crystal.
        """
        from scipy.optimize import lsq_linear

        if not len(crystals):
            raise ValueError("volumes of atoms need at least one known crystal to be fitted to")
        share = np.zeros((len(crystals), MAX_ATOMIC_NUMBER + 1))  # atoms of an element per Å³
        for row, crystal in zip(share, crystals, strict=True):
            np.add.at(row, crystal.atomic_numbers, 1.0 / crystal.volume)
        known = np.flatnonzero(share.any(axis=0))
        mean = np.median([crystal.volume / crystal.num_atoms for crystal in crystals])
        pull = np.eye(len(known)) * TOWARDS_MEAN
        fit = lsq_linear(
            np.concatenate([share[:, known], pull / mean]),
            np.concatenate([np.ones(len(crystals)), pull.sum(axis=1)]),
            bounds=(SMALLEST, np.inf),
        )
        self._volume: Float64[np.ndarray, " z"] = np.full(MAX_ATOMIC_NUMBER + 1, np.nan)
        self._volume[known] = fit.x

    def knows(self, atomic_number: int) -> bool:
        """Whether a crystal of the fit holds this element."""
        return bool(np.isfinite(self._volume[atomic_number]))

    def __getitem__(self, atomic_number: int) -> float:
        """Volume of one atom, Å³.

        Raises:
            ValueError: if no crystal of the fit holds the element.
        """
        if not self.knows(atomic_number):
            symbol = Element.from_Z(atomic_number).symbol
            raise ValueError(f"no known crystal holds {symbol}, so its volume is unknown: add one that does")
        return float(self._volume[atomic_number])

    def total(self, counts: Mapping[int, int]) -> float:
        """Volume of a cell with these numbers of atoms (by atomic number), Å³.

        Raises:
            ValueError: if an element is unknown.
        """
        return sum(self[z] * count for z, count in counts.items())
