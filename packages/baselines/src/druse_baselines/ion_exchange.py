"""Exchange any number of ions of a known crystal, as data mining says that nature does.

Hautier, Fischer, Ehrlacher, Jain, Ceder, "Data mined ionic substitutions for the discovery of new compounds", Inorg.
Chem. 50, 656 (2011). The probabilities are pymatgen's ``SubstitutionProbability``. Its ``Substitutor`` finds the same
exchanges as this file, one crystal or one target composition at a time.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import islice

import numpy as np
from druse_crystal import Crystal
from jaxtyping import Float64

from druse_baselines.exchange import exchange
from druse_baselines.order import random_order, take_turns
from druse_baselines.oxidation import oxidation_states
from druse_baselines.proposer import Target, element_counts
from druse_baselines.volumes import AtomicVolumes

Ion = tuple[int, int]  # atomic number, charge


class IonExchange:
    """Propose crystals that differ from a known one in one or several ions, and are neutral.

    The parents take turns in random order; each gives its exchanges without repetition, drawn in proportion to their
    probability. The stream ends when all parents have given all. Atoms stay where they are in the cell, all atoms of an
    element are exchanged, and the cell keeps its shape while its volume follows the sizes of the atoms.

    A parent needs charges: metals, elements and compounds of mixed valence have no exchanges.
    """

    name = "ion exchange"

    def __init__(self, parents: Sequence[Crystal], *, threshold: float = 1e-3):
        """Choose the parents.

        Args:
            parents: known crystals.
            threshold: exchanges of this probability or less are left out. The probability is the product over all ions,
                also those that stay, of the conditional probability of the new ion given the old one.

        Raises:
            ValueError: if there is no parent.
        """
        if not len(parents):
            raise ValueError("ion exchange needs at least one known crystal as a parent")
        self.parents = parents
        self.threshold = threshold

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose up to ``n`` different crystals: see ``Proposer``.

        Raises:
            ValueError: if no exchange leads to the target.
        """
        wanted = Target.parse(target) if target else None
        order = np.random.default_rng(seed).permutation(len(self.parents)).tolist()
        children = take_turns(self._children(position, wanted, seed) for position in order)
        empty = n > 0
        for child in islice(children, n):
            empty = False
            yield child
        if empty:
            goal = f"leads to {target}" if target else "is possible"
            raise ValueError(
                f"no exchange of ions in {len(self.parents)} known crystals {goal}: "
                f"give more parents or lower threshold ({self.threshold})"
            )

    @cached_property
    def _volumes(self) -> AtomicVolumes:
        return AtomicVolumes(self.parents)

    def _children(self, position: int, wanted: Target | None, seed: int) -> Iterator[Crystal]:
        parent = self.parents[position]
        found = self.exchanges(parent, wanted)
        old = sorted(element_counts(parent))
        rng = np.random.default_rng((seed, position))
        elements = list(found)
        for k in random_order(list(found.values()), rng):
            yield exchange(parent, dict(zip(old, elements[k], strict=True)), self._volumes)

    def exchanges(self, parent: Crystal, wanted: Target | None = None) -> dict[tuple[int, ...], float]:
        """All exchanges that are allowed, with their probabilities.

        Args:
            parent: the crystal.
            wanted: where they have to lead.

        Returns:
            {atomic numbers in the place of the parent's elements, which are in rising order: probability}; ions of
            different charge but of the same element count together.
        """
        counts = element_counts(parent)
        if wanted is not None and len(wanted.elements) != len(counts):
            return {}
        ions, probability = ion_probabilities()
        charges = oxidation_states(counts, known=ions)
        if charges is None:
            return {}
        allowed = np.array(
            [self._volumes.knows(z) and (wanted is None or z in wanted.elements) for z, _ in ions], dtype=bool
        )
        old = sorted(counts)
        columns = [np.where(allowed, probability[:, ions[z, charges[z]]], 0.0) for z in old]
        names = list(ions)
        found: dict[tuple[int, ...], float] = defaultdict(float)
        for chosen, product in _likely(columns, self.threshold):
            new = tuple(names[k][0] for k in chosen)
            charge = sum(names[k][1] * counts[z] for k, z in zip(chosen, old, strict=True))
            content = {k: counts[z] for k, z in zip(new, old, strict=True)}
            is_new = new != tuple(old) and len(content) == len(old)
            if charge == 0 and is_new and (wanted is None or wanted.matches(content)):
                found[new] += product
        return dict(found)


def _likely(columns: Sequence[np.ndarray], threshold: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Choices of one row in each column whose product exceeds the threshold, by branch and bound."""
    best = np.cumprod([1.0, *(column.max() for column in reversed(columns))])[::-1]  # of the columns still to come
    partial: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for column, ahead in zip(columns, best[1:], strict=True):
        partial = [
            ((*chosen, int(k)), float(product * column[k]))
            for chosen, product in partial
            for k in np.flatnonzero(product * column * ahead > threshold)
        ]
    yield from partial


@cache
def ion_probabilities() -> tuple[dict[Ion, int], Float64[np.ndarray, "new old"]]:
    """Probability that an ion is found in the place of another one, given the other one.

    Returns:
        {(atomic number, charge): row and column} and the table (ions, ions): a row for each new ion, a column for each
        old one. Columns sum to one, the ion itself included.
    """
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

    model = SubstitutionProbability()
    species = sorted(model.species, key=str)  # a set: its order would change with every process
    table = np.array([[model.cond_prob(new, old) for old in species] for new in species])
    return {(ion.Z, round(ion.oxi_state or 0)): k for k, ion in enumerate(species)}, table
