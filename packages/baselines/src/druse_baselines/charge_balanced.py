"""Known structure types with random elements that can be neutral: what charges alone are worth."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import permutations

import numpy as np
from druse_crystal import Crystal

from druse_baselines.exchange import exchange
from druse_baselines.oxidation import can_be_neutral
from druse_baselines.proposer import Target, element_counts
from druse_baselines.volumes import AtomicVolumes

MAX_TRIES = 100  # of elements for one parent; there are stoichiometries that no charges balance
MAX_DRAWS = 200  # of a parent for one crystal


class ChargeBalanced:
    """Propose random known structures with random elements, such that charges can add up to zero, without end.

    Every element that a parent holds is equally likely. It may have the charges of ``charges_of``, all atoms of an
    element the same one. Whether it likes the place is not asked: that makes this a floor. Atoms stay where they are in
    the cell, and the cell keeps its shape while its volume follows the sizes of the atoms. Pure elements count as
    neutral. Each crystal has its own random stream.
    """

    name = "charge balanced"

    def __init__(self, parents: Sequence[Crystal]):
        """Choose the parents.

        Args:
            parents: known crystals, the source of structures, of elements and of their volumes.

        Raises:
            ValueError: if there is no parent.
        """
        if not len(parents):
            raise ValueError("random decoration needs at least one known crystal as a parent")
        self.parents = parents

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose ``n`` crystals: see ``Proposer``.

        Raises:
            ValueError: if no parent can hold the target's elements in neutral proportions, or an element of it is in no
                parent.
            RuntimeError: if 200 parents, drawn at random, could not be balanced.
        """
        choices = self._choices(Target.parse(target)) if target else None
        if choices is not None and not choices:
            raise ValueError(
                f"none of {len(self.parents)} known crystals can hold {target} with charges that add up to zero: "
                "give more parents or ask for something else"
            )
        for index in range(n):
            rng = np.random.default_rng((seed, index))
            parent, new = self._draw(rng) if choices is None else self._draw_of(choices, rng)
            yield exchange(parent, dict(zip(sorted(element_counts(parent)), new, strict=True)), self._volumes)

    @cached_property
    def _volumes(self) -> AtomicVolumes:
        return AtomicVolumes(self.parents)

    @cached_property
    def _elements(self) -> list[int]:
        return sorted(set().union(*(parent.atomic_numbers.tolist() for parent in self.parents)))

    def _draw(self, rng: np.random.Generator) -> tuple[Crystal, list[int]]:
        for _ in range(MAX_DRAWS):
            parent = self.parents[int(rng.integers(len(self.parents)))]
            counts = _counts(parent)
            for _ in range(MAX_TRIES):
                new = rng.choice(self._elements, size=len(counts), replace=False).tolist()
                if can_be_neutral(new, counts):
                    return parent, new
        raise RuntimeError(
            f"no elements balanced the charges in {MAX_DRAWS} known crystals, drawn at random: "
            "give parents of more elements or other stoichiometries"
        )

    def _choices(self, wanted: Target) -> list[tuple[int, list[tuple[int, ...]]]]:
        """Positions of parents, and the orders in which the elements of the target may take their places."""
        for z in wanted.elements:
            self._volumes[z]  # raises for an element that no parent holds
        allowed: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        found = []
        for position, parent in enumerate(self.parents):
            counts = _counts(parent)
            if len(counts) != len(wanted.elements):
                continue
            if counts not in allowed:
                allowed[counts] = [
                    new
                    for new in permutations(sorted(wanted.elements))
                    if wanted.matches(dict(zip(new, counts, strict=True))) and can_be_neutral(new, counts)
                ]
            if allowed[counts]:
                found.append((position, allowed[counts]))
        return found

    def _draw_of(
        self, choices: Sequence[tuple[int, list[tuple[int, ...]]]], rng: np.random.Generator
    ) -> tuple[Crystal, list[int]]:
        position, orders = choices[int(rng.integers(len(choices)))]
        return self.parents[position], list(orders[int(rng.integers(len(orders)))])


def _counts(parent: Crystal) -> tuple[int, ...]:
    """Numbers of atoms of the elements, by rising atomic number."""
    return tuple(count for _, count in sorted(element_counts(parent).items()))
