"""The order in which crystals are learnt: a pure function of the seed, so that a resumed run goes on where it was."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from druse_crystal import CrystalBatch
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import CrystalDataset, PackedCrystals
from druse_crystal.lattice import symmetric_form
from druse_diffusion import NUM_ELEMENTS
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset

_CHUNK = 4096  # crystals sorted by size at a time, at least: keeps sizes alike within a batch, mixed between batches
_BATCHES = 64  # of a chunk, about, at least: the last one of each size holds larger crystals too


def as_batch(dataset: CrystalDataset) -> CrystalBatch:
    """All crystals of a dataset as one batch on the host, lattices in their symmetric form.

    Raises:
        ValueError: for an element that models have no class for.
    """
    packed = _packed(dataset)
    if len(packed.atomic_numbers) and (largest := int(packed.atomic_numbers.max())) > NUM_ELEMENTS:
        raise ValueError(
            f"the dataset has an atom with the number {largest}, and models have classes for elements up to "
            f"{NUM_ELEMENTS}: build it again with `druse-train data build`, which leaves such crystals out"
        )
    return CrystalBatch(
        lattice=symmetric_form(torch.tensor(packed.lattice)).float(),
        frac_coords=torch.tensor(packed.frac_coords).float() % 1.0,
        atomic_numbers=torch.tensor(packed.atomic_numbers),
        num_atoms=torch.tensor(packed.num_atoms),
    )


def fingerprint(datasets: Iterable[CrystalDataset]) -> str:
    """SHA-256 of the crystals of some datasets in their order; names, labels and the kind of file do not count."""
    digest = hashlib.sha256()
    for dataset in datasets:
        packed = _packed(dataset)
        for values, kind in (
            (packed.num_atoms, "<i8"),
            (packed.atomic_numbers, "<i8"),
            (packed.lattice, "<f8"),
            (packed.frac_coords, "<f8"),
        ):
            digest.update(values.astype(kind).tobytes())
    return digest.hexdigest()


def _packed(dataset: CrystalDataset) -> PackedCrystals:
    crystals = dataset.crystals
    return crystals if isinstance(crystals, PackedCrystals) else PackedCrystals.from_crystals(crystals)


class Place(NamedTuple):
    """A place in the endless order of batches."""

    epoch: int = 0
    index: int = 0


START = Place()


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchStream(IterableDataset):
    """Endless batches of positions, starting at any place.

    Attributes:
        num_atoms: (b,) of every crystal of the dataset.
        pair_budget: see ``DataConfig``.
        max_batch: see ``DataConfig``.
        seed: of the order.
        start: where to begin.
        rank: of this process.
        world: number of processes; each takes every ``world``-th batch.
    """

    num_atoms: Int[np.ndarray, " b"]
    pair_budget: int
    max_batch: int
    seed: int
    start: Place = START
    rank: int = 0
    world: int = 1

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """All batches of an epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.num_atoms))
        batches = []
        chunk_size = max(_CHUNK, int(_BATCHES * self.pair_budget / np.square(self.num_atoms, dtype=float).mean()))
        for first in range(0, len(order), chunk_size):
            chunk = order[first : first + chunk_size]
            buckets = size_buckets(self.num_atoms[chunk], pair_budget=self.pair_budget, max_batch=self.max_batch)
            batches += [chunk[bucket] for bucket in buckets]
        return [batches[i] for i in rng.permutation(len(batches))]

    def mean_size(self) -> float:
        """Crystals in a batch on average; batches of small crystals hold many more than those of large ones."""
        return len(self.num_atoms) / len(self.epoch(0))

    def __iter__(self) -> Iterator[tuple[Place, Tensor, int]]:
        """The place after this step, this process's crystals, and how many crystals all processes take in the step."""
        epoch, index = self.start.epoch, self.start.index
        while True:
            batches = self.epoch(epoch)
            while index + self.world <= len(batches):
                # the same number of batches for every process: a last few of an epoch may be left out
                step = batches[index : index + self.world]
                index += self.world
                yield Place(epoch=epoch, index=index), torch.tensor(step[self.rank]), sum(map(len, step))
            epoch, index = epoch + 1, 0
