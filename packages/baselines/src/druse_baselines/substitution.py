"""Exchange one element of a known crystal for a similar one, and rescale the cell.

The scheme of Wang, Botti and Marques, "Predicting stable crystalline compounds using chemical similarity", npj Comput.
Mater. 7, 12 (2021), with the similarity of ions mined by Hautier et al., Inorg. Chem. 50, 656 (2011), as shipped in
pymatgen. Both are about known structure types, so this is a strong baseline: most of what it proposes is reasonable.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, cached_property

import numpy as np
from druse_crystal import Crystal

from druse_baselines.exchange import exchange
from druse_baselines.order import random_order
from druse_baselines.proposer import Target, element_counts
from druse_baselines.volumes import AtomicVolumes


class Substitution:
    """Propose crystals that differ from a known one in one element.

    Every (parent, element, replacement) is proposed at most once: parents are equally likely, so are the elements of a
    parent, and a replacement is drawn in proportion to its similarity. The atoms stay where they are in the cell, all
    atoms of the element are exchanged, and the cell keeps its shape while its volume follows the sizes of the atoms.
    """

    name = "substitution"

    def __init__(self, parents: Sequence[Crystal], *, min_similarity: float = 0.05):
        """Choose the parents.

        Args:
            parents: known crystals.
            min_similarity: replacements with less than this share of an element's similarity are left out.

        Raises:
            ValueError: if there is no parent.
        """
        if not len(parents):
            raise ValueError("substitution needs at least one known crystal as a parent")
        self.parents = parents
        self.min_similarity = min_similarity

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose up to ``n`` different crystals: see ``Proposer``.

        Raises:
            ValueError: if no substitution leads to the target.
        """
        parents, old, new, weight = self._candidates(Target.parse(target) if target else None)
        if not len(parents):
            wanted = f"leads to {target}" if target else "is possible"
            raise ValueError(
                f"no exchange of one element in {len(self.parents)} known crystals {wanted}: "
                f"give more parents or lower min_similarity ({self.min_similarity})"
            )
        for k in random_order(weight, np.random.default_rng(seed))[:n]:
            yield exchange(self.parents[int(parents[k])], {int(old[k]): int(new[k])}, self._volumes)

    @cached_property
    def _volumes(self) -> AtomicVolumes:
        return AtomicVolumes(self.parents)

    def _candidates(self, target: Target | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Position of the parent, old element, new element and weight of every substitution that is allowed."""
        table = similarity(self.min_similarity)
        found: list[tuple[int, int, int, float]] = []
        for position, parent in enumerate(self.parents):
            counts = element_counts(parent)
            for old in counts:
                replacements = {
                    z: s for z, s in table.get(old, {}).items() if z not in counts and self._volumes.knows(z)
                }
                total = sum(replacements.values()) * len(counts)
                for new, share in replacements.items():
                    if target is None or target.matches({new if z == old else z: k for z, k in counts.items()}):
                        found.append((position, old, new, share / total))
        columns = np.array(found, dtype=np.float64).reshape(-1, 4).T
        return columns[0].astype(int), columns[1].astype(int), columns[2].astype(int), columns[3]


def similarity(min_similarity: float = 0.0) -> dict[int, dict[int, float]]:
    """How readily each element gives its place to another one at the same charge.

    The joint probability of two ions in one structure type is proportional to exp(lambda) (Hautier et al., Eq. 2). The
    similarity of two elements is its sum over their ions of equal charge that were observed in each other's place,
    divided by the sum over all other elements.

    Args:
        min_similarity: smaller shares are left out.

    Returns:
        {atomic number: {atomic number of the replacement: share}}; each row sums to at most one. The noble gases,
        Pm, At, Fr, Ra and the elements past Cf have no row.
    """
    return {z: {k: share for k, share in row.items() if share >= min_similarity} for z, row in _shares().items()}


@cache
def _shares() -> dict[int, dict[int, float]]:
    from pymatgen.core import Species
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

    model = SubstitutionProbability()
    ions: dict[float | None, list[Species]] = defaultdict(list)
    for ion in sorted(model.species, key=str):  # a set: its order would change with every process
        ions[ion.oxi_state].append(ion)
    joint: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for same_charge in ions.values():
        for one in same_charge:
            for other in same_charge:
                weight = model.get_lambda(one, other)
                if one.Z != other.Z and weight != model.alpha:  # alpha stands for pairs that were never observed
                    joint[one.Z][other.Z] += math.exp(weight)
    return {z: {k: row[k] / sum(row.values()) for k in sorted(row)} for z, row in sorted(joint.items())}
