"""How close atoms come to each other in known crystals."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import batched

import numpy as np
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.neighbors import neighbors
from jaxtyping import Float64
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Element

CUTOFF = 4.0  # Å; atoms further apart do not limit each other
AT_ONCE = 500  # crystals


class ShortestDistances:
    """One distance for each pair of elements: the median, over known crystals, of the shortest one in a crystal.

    The median leaves out what is rare: peroxides say nothing about oxides. Pairs that no crystal holds within 4 Å get
    the sum of their covalent radii (Cordero et al., Dalton Trans. 2832, 2008, as in pymatgen; the largest of them for
    the elements past Cm).
    """

    def __init__(self, crystals: Sequence[Crystal]):
        """Measure the distances.

        Args:
            crystals: known crystals.
        """
        found: dict[tuple[int, int], list[float]] = defaultdict(list)
        for some in batched(crystals, AT_ONCE):
            batch = CrystalBatch.from_crystals(some)
            near = neighbors(batch, cutoff=CUTOFF)
            numbers = batch.atomic_numbers.numpy()
            pairs = np.sort(np.stack([numbers[near.source.numpy()], numbers[near.target.numpy()]]), axis=0)
            rows = np.stack([batch.crystal_index[near.target].numpy(), *pairs])
            kinds, which = np.unique(rows, axis=1, return_inverse=True)
            shortest = np.full(kinds.shape[1], np.inf)
            np.minimum.at(shortest, which, near.distances.numpy())
            for (_, one, other), distance in zip(kinds.T.tolist(), shortest.tolist(), strict=True):
                found[one, other].append(distance)
        self._distance = {pair: float(np.median(values)) for pair, values in found.items()}

    def between(self, one: int, other: int) -> float:
        """Distance in Å of two elements, given by their atomic numbers."""
        pair = (min(one, other), max(one, other))
        return self._distance[pair] if pair in self._distance else covalent_radius(one) + covalent_radius(other)

    def table(self, atomic_numbers: Sequence[int] | np.ndarray) -> Float64[np.ndarray, "n n"]:
        """Distances in Å for all pairs of n atoms."""
        kinds, which = np.unique(atomic_numbers, return_inverse=True)
        table = np.array([[self.between(int(one), int(other)) for other in kinds] for one in kinds])
        return table[np.ix_(which, which)]


def covalent_radius(atomic_number: int) -> float:
    """Covalent radius in Å."""
    radii = CovalentRadius.radius
    return float(radii.get(Element.from_Z(atomic_number).symbol, max(radii.values())))
