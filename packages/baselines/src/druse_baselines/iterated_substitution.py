"""Go on with substituted crystals as parents: one element after the other, always by a similar one.

Wang, Botti, Marques, npj Comput. Mater. 7, 12 (2021) exchange one element; whoever repeats that with what came out
reaches every chemical system that similar elements connect with a known one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import islice

import numpy as np
from druse_crystal import Crystal

from druse_baselines.exchange import exchange
from druse_baselines.order import random_order, take_turns
from druse_baselines.proposer import Target, element_counts
from druse_baselines.substitution import similarity
from druse_baselines.volumes import AtomicVolumes

Reach = Mapping[int, Mapping[int, float]]  # number of exchanges: {element: weight}


class IteratedSubstitution:
    """Propose crystals that one or more exchanges of one element make of a known one, fewest exchanges first.

    First come all crystals that one exchange reaches, as in ``Substitution``; then those that need two; and so on,
    until similar elements lead no further. Among crystals of equally many exchanges the parents take turns in random
    order, and each gives its children without repetition, drawn in proportion to the product of the similarities on the
    way. The order of the exchanges makes no difference, neither to the atoms nor to the cell, so it is not told apart.
    """

    name = "iterated substitution"

    def __init__(self, parents: Sequence[Crystal], *, min_similarity: float = 0.05):
        """Choose the parents.

        Args:
            parents: known crystals.
            min_similarity: replacements with less than this share of an element's similarity are left out.

        Raises:
            ValueError: if there is no parent.
        """
        if not len(parents):
            raise ValueError("iterated substitution needs at least one known crystal as a parent")
        self.parents = parents
        self.min_similarity = min_similarity

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose up to ``n`` different crystals: see ``Proposer``.

        Raises:
            ValueError: if no chain of substitutions leads to the target.
        """
        wanted = Target.parse(target) if target else None
        empty = n > 0
        for child in islice(self._generations(wanted, seed), n):
            empty = False
            yield child
        if empty:
            goal = f"leads to {target}" if target else "is possible"
            raise ValueError(
                f"no chain of exchanges in {len(self.parents)} known crystals {goal}: "
                f"give more parents or lower min_similarity ({self.min_similarity})"
            )

    @cached_property
    def _volumes(self) -> AtomicVolumes:
        return AtomicVolumes(self.parents)

    def _generations(self, wanted: Target | None, seed: int) -> Iterator[Crystal]:
        elements = [sorted(element_counts(parent)) for parent in self.parents]
        reach = {z: self._reach(z, wanted) for z in set().union(*elements)}
        parents: dict[int, list[int]] = defaultdict(list)  # number of exchanges: positions of parents
        for position, old in enumerate(elements):
            if wanted is None or len(wanted.elements) == len(old):
                for steps in _sums([reach[z] for z in old]):
                    parents[steps].append(position)
        for steps in sorted(parents.keys() - {0}):
            order = np.random.default_rng((seed, steps)).permutation(parents[steps]).tolist()
            yield from take_turns(self._children(position, steps, reach, wanted, seed) for position in order)

    def _reach(self, z: int, wanted: Target | None) -> Reach:
        """What may become of an element after so many exchanges, with the product of similarities."""
        rings = {
            steps: {
                k: weight
                for k, weight in ring.items()
                if self._volumes.knows(k) and (wanted is None or k in wanted.elements)
            }
            for steps, ring in reachable(z, self.min_similarity).items()
        }
        return {steps: ring for steps, ring in rings.items() if ring}

    def _children(
        self, position: int, steps: int, reach: Mapping[int, Reach], wanted: Target | None, seed: int
    ) -> Iterator[Crystal]:
        parent = self.parents[position]
        counts = element_counts(parent)
        old = sorted(counts)
        found = [
            (new, weight)
            for new, weight in _after([reach[z] for z in old], steps)
            if wanted is None or wanted.matches({k: counts[z] for k, z in zip(new, old, strict=True)})
        ]
        rng = np.random.default_rng((seed, steps, position))
        for k in random_order([weight for _, weight in found], rng):
            yield exchange(parent, dict(zip(old, found[k][0], strict=True)), self._volumes)


@cache
def reachable(z: int, min_similarity: float) -> dict[int, dict[int, float]]:
    """What an element can become by repeated exchange for a similar one, in as few exchanges as possible.

    Args:
        z: atomic number.
        min_similarity: see ``similarity``.

    Returns:
        {number of exchanges: {atomic number: sum over the shortest ways of the product of similarities}}; zero
        exchanges leave the element itself.
    """
    table = _similarity(min_similarity)
    rings = {0: {z: 1.0}}
    seen = {z}
    while ring := rings[len(rings) - 1]:
        following: dict[int, float] = defaultdict(float)
        for via, weight in ring.items():
            for k, share in table.get(via, {}).items():
                if k not in seen:
                    following[k] += weight * share
        seen |= following.keys()
        rings[len(rings)] = dict(following)
    del rings[len(rings) - 1]
    return rings


_similarity = cache(similarity)


def _sums(reach: Sequence[Reach]) -> set[int]:
    """All numbers of exchanges that some choice for each element adds up to."""
    sums = {0}
    for rings in reach:
        sums = {total + steps for total in sums for steps in rings}
    return sums


def _after(reach: Sequence[Reach], steps: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Different elements for all places after ``steps`` exchanges in total, with the product of their weights."""
    if not reach:
        if steps == 0:
            yield (), 1.0
        return
    *first, last = reach
    for spent, ring in last.items():
        if spent <= steps:
            for new, weight in _after(first, steps - spent):
                for k, share in ring.items():
                    if k not in new:
                        yield (*new, k), weight * share
