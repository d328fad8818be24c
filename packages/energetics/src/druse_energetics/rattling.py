"""Rattling: shake a relaxed crystal and relax it again, to see whether it lay in a basin or on a saddle.

A relaxation keeps every symmetry that its crystal started with, so that it may end where the energy falls to the side.
A small random displacement of every atom breaks all symmetry: from a minimum the crystal comes back, from a saddle
or a shallow basin it goes on to a lower place.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from druse_crystal.crystal import Crystal
from druse_crystal.journal import crystal_key

from druse_energetics.relaxation import OnResult, Relaxation, Relaxer

DISPLACEMENT = 0.05  # Å, standard deviation of each Cartesian component
MIN_DROP = 1e-3  # eV/atom; see README.md: two ways into one basin end up to some tenths of a meV/atom apart


class RattledRelaxer:
    """A relaxer that relaxes twice, the second time from the shaken result of the first, and keeps the better one.

    The second result is kept if it is converged and its energy lower by more than ``min_drop``; a crystal never gets
    worse, and one whose first relaxation did not converge is left as it is. The shake of a crystal follows from the
    seed and the crystal as given, to the last bit: it is the same alone and among others.

    Args:
        relaxer: does both relaxations.
        displacement: Å, standard deviation of the Gaussian displacement of each Cartesian component.
        min_drop: eV/atom; what is lower by less is the same basin.
        seed: another seed is another shake.

    Raises:
        ValueError: for numbers that make no sense.
    """

    def __init__(
        self, relaxer: Relaxer, *, displacement: float = DISPLACEMENT, min_drop: float = MIN_DROP, seed: int = 0
    ):
        if not displacement > 0:
            raise ValueError(f"displacement is {displacement}, it must be above 0 Å")
        if not min_drop >= 0:
            raise ValueError(f"min_drop is {min_drop}, it cannot be below 0 eV/atom")
        self.name = relaxer.name
        self.relaxer = relaxer
        self.displacement = displacement
        self.min_drop = min_drop
        self.seed = seed

    def __call__(self, crystals: Sequence[Crystal], *, on_result: OnResult | None = None) -> list[Relaxation]:
        """Relax, shake, relax; see ``Relaxer``. ``on_result`` is called once a crystal, with what is kept."""
        results: list[Relaxation | None] = [None] * len(crystals)

        def report(index: int, result: Relaxation) -> None:
            results[index] = result
            if on_result is not None:
                on_result(index, result)

        first = self.relaxer(crystals)
        shaken: dict[int, Crystal] = {}
        for index, (given, relaxation) in enumerate(zip(crystals, first, strict=True)):
            if relaxation.converged and relaxation.crystal is not None:
                stream = np.random.default_rng([self.seed, int(crystal_key(given), 16)])
                shaken[index] = rattled(relaxation.crystal, displacement=self.displacement, generator=stream)
            else:
                report(index, relaxation)
        indices = list(shaken)

        def on_second(position: int, second: Relaxation) -> None:
            index = indices[position]
            report(index, lower(first[index], second, min_drop=self.min_drop))

        if shaken:
            self.relaxer(list(shaken.values()), on_result=on_second)
        return results  # ty: ignore[invalid-explicit-return]


def rattled(crystal: Crystal, *, displacement: float, generator: np.random.Generator) -> Crystal:
    """The crystal with a Gaussian displacement of every Cartesian component; the cell stays.

    Args:
        crystal: any.
        displacement: Å, standard deviation.
        generator: draws (n, 3) normal numbers.
    """
    moves = displacement * generator.standard_normal((crystal.num_atoms, 3))
    return crystal.replace(frac_coords=crystal.frac_coords + np.linalg.solve(crystal.lattice.T, moves.T).T)


def lower(first: Relaxation, second: Relaxation, *, min_drop: float = MIN_DROP) -> Relaxation:
    """Of a converged relaxation and that of its shaken crystal, the one to keep.

    Returns:
        The second, with the steps of both and the initial energy of the first, if it converged lower by more than
        ``min_drop`` (eV/atom); else the first. Its ``rattled_energy_drop`` is how much lower (eV/atom), 0 where the
        first is kept, and None where the second did not converge, which leaves the question open.
    """
    if not second.converged or second.crystal is None:
        return first
    drop = (first.energy - second.energy) / second.crystal.num_atoms
    if not drop > min_drop:
        return replace(first, rattled_energy_drop=0.0)
    return replace(
        second,
        initial_energy=first.initial_energy,
        n_steps=first.n_steps + second.n_steps,
        rattled_energy_drop=float(drop),
    )
