"""Known crystals once more: what a generator scores that has learned its training data by heart."""

from collections.abc import Iterator, Sequence

import numpy as np
from druse_crystal import Crystal

from druse_baselines.proposer import Target, element_counts


class Resampling:
    """Propose known crystals, drawn at random with replacement, without end.

    Each crystal has its own random stream.
    """

    name = "resampling"

    def __init__(self, parents: Sequence[Crystal], *, noise: float = 0.0):
        """Choose what is drawn from.

        Args:
            parents: known crystals.
            noise: standard deviation in Å by which each Cartesian coordinate of an atom is moved; 0: crystals stay as
                they are.

        Raises:
            ValueError: if there is no parent, or the noise is negative or not finite.
        """
        if not len(parents):
            raise ValueError("resampling needs at least one known crystal to draw from")
        if not 0 <= noise < np.inf:
            raise ValueError(f"noise is {noise}, it must be a length in Å: zero or more")
        self.parents = parents
        self.noise = noise

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose ``n`` crystals: see ``Proposer``.

        Raises:
            ValueError: if no known crystal is what the target asks for.
        """
        wanted = Target.parse(target) if target else None
        fitting = [
            position
            for position, parent in enumerate(self.parents)
            if wanted is None or wanted.matches(element_counts(parent))
        ]
        if not fitting:
            raise ValueError(f"none of {len(self.parents)} known crystals is {target}: add one that is")
        for index in range(n):
            rng = np.random.default_rng((seed, index))
            parent = self.parents[fitting[int(rng.integers(len(fitting)))]]
            yield self._moved(parent, rng) if self.noise else parent

    def _moved(self, parent: Crystal, rng: np.random.Generator) -> Crystal:
        shift = self.noise * rng.standard_normal((parent.num_atoms, 3))  # Å
        return parent.replace(frac_coords=parent.frac_coords + shift @ np.linalg.inv(parent.lattice))
