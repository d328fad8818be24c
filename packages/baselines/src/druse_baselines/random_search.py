"""Random structure search: known stoichiometries, random space groups, random atoms, sensible volumes.

The idea of ab initio random structure searching (Pickard, Needs, J. Phys. Condens. Matter 23, 053201, 2011), with
PyXtal to place atoms on Wyckoff positions. What comes out is a starting point for a relaxation.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from druse_crystal import Crystal
from druse_crystal.symmetry import primitive
from pymatgen.core import Element

from druse_baselines.proposer import Target, element_counts
from druse_baselines.volumes import AtomicVolumes
from druse_baselines.worker import PlacementWorker

MAX_DRAWS = 200  # for one crystal; ends a search whose volume and tolerance cannot be met together


class RandomSearch:
    """Propose symmetric random crystals whose compositions and volumes are those of known ones.

    Without a target, each crystal has the cell content of a known one, drawn at random. A formula is drawn with any
    number of formula units that ``max_atoms`` allows. For a chemical system, the stoichiometry of a known crystal with
    as many elements is taken and the elements are assigned in the order of their electronegativity.

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
        self.parents = [parent for parent in parents if parent.num_atoms <= max_atoms]
        if not self.parents:
            raise ValueError(f"random search needs at least one known crystal of at most max_atoms={max_atoms} atoms")
        self.max_atoms = max_atoms
        self.volume_factor = volume_factor
        self.tolerance = tolerance
        self.time_limit = time_limit

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose ``n`` crystals: see ``Proposer``.

        Raises:
            ValueError: if the target does not fit into ``max_atoms``, or no parent has its elements or as many.
            RuntimeError: if the atoms of one crystal could not be placed in 200 draws.
        """
        wanted = Target.parse(target) if target else None
        if wanted:
            self._check(wanted, str(target))
        with PlacementWorker(time_limit=self.time_limit) as worker:
            for index in range(n):
                yield self._draw(worker, wanted, seed, index)

    @cached_property
    def _volumes(self) -> AtomicVolumes:
        return AtomicVolumes(self.parents)

    @cached_property
    def _compositions(self) -> dict[int, list[list[int]]]:
        """Numbers of atoms in the order of electronegativity, for each number of elements."""
        found: dict[int, list[list[int]]] = {}
        for parent in self.parents:
            counts = element_counts(parent)
            found.setdefault(len(counts), []).append([counts[z] for z in _by_electronegativity(counts)])
        return found

    def _check(self, wanted: Target, text: str) -> None:
        for z in wanted.elements:
            self._volumes[z]  # raises for an element that no parent holds
        if wanted.formula is None:
            if len(wanted.elements) not in self._compositions:
                raise ValueError(f"no known crystal has as many elements as {text}: add one, or ask for a formula")
        elif (size := sum(count for _, count in wanted.formula)) > self.max_atoms:
            raise ValueError(f"one formula unit of {text} has {size} atoms: raise max_atoms ({self.max_atoms})")

    def _draw(self, worker: PlacementWorker, wanted: Target | None, seed: int, index: int) -> Crystal:
        for draw in range(MAX_DRAWS):
            stream = (seed, index, draw)
            counts = self._composition(wanted, np.random.default_rng((*stream, 0)))
            volume = self.volume_factor * self._volumes.total(counts)
            crystal = worker.place(counts, volume=volume, tolerance=self.tolerance, seed=(*stream, 1))
            if crystal is not None:
                return primitive(crystal)
        raise RuntimeError(
            f"the atoms of a crystal found no place in {MAX_DRAWS} draws: "
            f"raise volume_factor ({self.volume_factor}) or lower tolerance ({self.tolerance})"
        )

    def _composition(self, wanted: Target | None, rng: np.random.Generator) -> dict[int, int]:
        """Atoms in the primitive cell, by atomic number."""
        if wanted is not None and wanted.formula is not None:
            units = rng.integers(1, self.max_atoms // sum(count for _, count in wanted.formula) + 1)
            return {z: int(count * units) for z, count in wanted.formula}
        if wanted is None:
            return dict(element_counts(self.parents[rng.integers(len(self.parents))]))
        alike = self._compositions[len(wanted.elements)]
        counts = alike[rng.integers(len(alike))]
        return dict(zip(_by_electronegativity(wanted.elements), counts, strict=True))


def _by_electronegativity(atomic_numbers: Iterable[int]) -> list[int]:
    """Atomic numbers from the most electropositive to the most electronegative; without a value (noble gases) last."""
    return sorted(atomic_numbers, key=lambda z: (np.nan_to_num(Element.from_Z(z).X, nan=np.inf), z))
