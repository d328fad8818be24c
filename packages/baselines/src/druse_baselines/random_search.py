"""Random structure search: known stoichiometries, random space groups, random atoms, sensible volumes.

The idea of ab initio random structure searching (Pickard, Needs, J. Phys. Condens. Matter 23, 053201, 2011), with
PyXtal to place atoms on Wyckoff positions. What comes out is a starting point for a relaxation.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from druse_crystal import Crystal
from druse_crystal.symmetry import primitive

from druse_baselines.compositions import KnownCompositions
from druse_baselines.proposer import Target
from druse_baselines.worker import PlacementWorker

MAX_DRAWS = 200  # for one crystal; ends a search whose volume and tolerance cannot be met together


class RandomSearch:
    """Propose symmetric random crystals whose compositions and volumes are those of known ones.

    Compositions are drawn by ``KnownCompositions``.

    Each crystal has its own random stream. A draw that exceeds ``time_limit`` is given up and drawn anew, so a machine
    so slow that it meets the limit more often can give other crystals for the same seed.
    """

    name = "random search"

    def __init__(
        self,
        parents: Sequence[Crystal],
        *,
        max_atoms: int = 20,
        volume_factor: float = 1.2,
        tolerance: float = 1.3,
        time_limit: float = 10.0,
    ):
        """Choose what is known.

        Args:
            parents: known crystals, the source of compositions and of volumes of atoms.
            max_atoms: most atoms in the primitive cell.
            volume_factor: volume of the cell over the sum of the volumes that its atoms take in known crystals.
            tolerance: atoms keep at least half the sum of their covalent radii times this number apart.
            time_limit: seconds that PyXtal gets for one draw.

        Raises:
            ValueError: if no parent has at most ``max_atoms`` atoms.
        """
        self._known = KnownCompositions(parents, max_atoms=max_atoms)
        self.volume_factor = volume_factor
        self.tolerance = tolerance
        self.time_limit = time_limit

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose ``n`` crystals: see ``Proposer``.

        Raises:
            ValueError: if the target does not fit into ``max_atoms``, or no parent has its elements or as many.
            RuntimeError: if the atoms of one crystal could not be placed in 200 draws.
        """
        wanted = self._known.check(target)
        with PlacementWorker(time_limit=self.time_limit) as worker:
            for index in range(n):
                yield self._draw(worker, wanted, seed, index)

    def _draw(self, worker: PlacementWorker, wanted: Target | None, seed: int, index: int) -> Crystal:
        for draw in range(MAX_DRAWS):
            stream = (seed, index, draw)
            counts = self._known.draw(wanted, np.random.default_rng((*stream, 0)))
            volume = self.volume_factor * self._known.volumes.total(counts)
            crystal = worker.place(counts, volume=volume, tolerance=self.tolerance, seed=(*stream, 1))
            if crystal is not None:
                return primitive(crystal)
        raise RuntimeError(
            f"the atoms of a crystal found no place in {MAX_DRAWS} draws: "
            f"raise volume_factor ({self.volume_factor}) or lower tolerance ({self.tolerance})"
        )
