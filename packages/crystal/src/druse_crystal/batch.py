"""Many crystals as flat tensors: the atoms of all crystals one after the other, and how many belong to each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from druse_crystal.crystal import Crystal

LARGEST_ATOMIC_NUMBER = 100
"""Of an atom that a diffusion process draws; what lies above stands for a masked atom."""


def size_buckets(num_atoms: np.ndarray, *, pair_budget: int, max_batch: int | None = None) -> list[np.ndarray]:
    """Positions of crystals, smallest crystals first, cut into batches of similar size.

    Args:
        num_atoms: (b,) of every crystal.
        pair_budget: a batch holds as many crystals as keep ``crystals x (largest number of atoms)^2`` at or below this;
            a crystal that is larger by itself gets a batch of its own.
        max_batch: most crystals in a batch; None: no limit.
    """
    order = np.argsort(num_atoms, kind="stable")
    buckets, start = [], 0
    for stop in range(1, len(order) + 1):
        full = stop == len(order) or (stop + 1 - start) * int(num_atoms[order[stop]]) ** 2 > pair_budget
        if full or stop - start == max_batch:
            buckets.append(order[start:stop])
            start = stop
    return buckets


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CrystalBatch:
    """A ragged batch of ``b`` crystals with ``n`` atoms in all.

    Attributes:
        lattice: (b, 3, 3) in Å, rows are lattice vectors.
        frac_coords: (n, 3) fractional coordinates.
        atomic_numbers: (n,) integers; a diffusion process may use numbers past the last element for masked atoms.
        num_atoms: (b,) number of atoms of each crystal.

    Raises:
        ValueError: if the shapes do not fit together.

    Numbers that are not finite pass: to look for them takes 10 to 40 µs, as long as or longer than everything else here
    (8 µs; one thread, 1 to 256 crystals), and on a GPU makes it wait, in the inner loop of the sampler. ``to_crystals``
    refuses them.
    """

    lattice: Float[Tensor, "b 3 3"]
    frac_coords: Float[Tensor, "n 3"]
    atomic_numbers: Int[Tensor, " n"]
    num_atoms: Int[Tensor, " b"]

    def __post_init__(self):
        b, n = self.num_atoms.numel(), self.frac_coords.shape[0]
        if self.num_atoms.ndim != 1:
            raise ValueError(f"num_atoms has shape {tuple(self.num_atoms.shape)}, it must be (number of crystals,)")
        if tuple(self.lattice.shape) != (b, 3, 3):
            raise ValueError(f"lattice has shape {tuple(self.lattice.shape)}, num_atoms asks for ({b}, 3, 3)")
        if tuple(self.frac_coords.shape) != (n, 3):
            raise ValueError(f"frac_coords has shape {tuple(self.frac_coords.shape)}, it must be (number of atoms, 3)")
        if tuple(self.atomic_numbers.shape) != (n,):
            raise ValueError(f"frac_coords has {n} atoms, atomic_numbers has shape {tuple(self.atomic_numbers.shape)}")
        if int(self.num_atoms.sum()) != n:
            raise ValueError(f"frac_coords has {n} atoms, num_atoms sums to {int(self.num_atoms.sum())}")
        if b and int(self.num_atoms.min()) < 1:
            raise ValueError("num_atoms holds a crystal without atoms")

    def __len__(self) -> int:
        return self.num_atoms.numel()

    @property
    def crystal_index(self) -> Int[Tensor, " n"]:
        """For every atom, the crystal that it belongs to."""
        return torch.repeat_interleave(self.num_atoms)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.lattice.device

    def replace(self, **changes) -> "CrystalBatch":
        """A new batch with some fields changed."""
        return replace(self, **changes)

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "CrystalBatch":
        """The batch on another device, and with lattice and coordinates in another floating type."""
        return CrystalBatch(
            lattice=self.lattice.to(device=device, dtype=dtype),
            frac_coords=self.frac_coords.to(device=device, dtype=dtype),
            atomic_numbers=self.atomic_numbers.to(device=device),
            num_atoms=self.num_atoms.to(device=device),
        )

    def select(self, index: Sequence[int] | Int[Tensor, " k"]) -> "CrystalBatch":
        """The crystals with these positions, in this order."""
        index = torch.as_tensor(index, dtype=torch.long, device=self.device)
        counts = self.num_atoms[index]
        starts = (self.num_atoms.cumsum(0) - self.num_atoms)[index]
        within = torch.arange(int(counts.sum()), device=self.device) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        atoms = torch.repeat_interleave(starts, counts) + within
        return CrystalBatch(
            lattice=self.lattice[index],
            frac_coords=self.frac_coords[atoms],
            atomic_numbers=self.atomic_numbers[atoms],
            num_atoms=counts,
        )

    @classmethod
    def from_crystals(
        cls, crystals: Iterable[Crystal], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> "CrystalBatch":
        """Stack crystals.

        Raises:
            ValueError: if there is none.
        """
        crystals = list(crystals)
        if not crystals:
            raise ValueError("a batch needs at least one crystal")
        return cls(
            lattice=torch.tensor(np.stack([c.lattice for c in crystals]), dtype=dtype, device=device),
            frac_coords=torch.tensor(np.concatenate([c.frac_coords for c in crystals]), dtype=dtype, device=device),
            atomic_numbers=torch.tensor(np.concatenate([c.atomic_numbers for c in crystals]), device=device),
            num_atoms=torch.tensor([c.num_atoms for c in crystals], device=device),
        )

    def to_crystals(self) -> list[Crystal]:
        """The crystals of the batch.

        Raises:
            ValueError: if one of them is not a valid ``Crystal`` (see there) or has an atom that is masked or of an
                element that no process draws; the sentence names its position.
        """
        lattice = self.lattice.detach().cpu().double().numpy()
        counts = self.num_atoms.tolist()
        coords = np.split(self.frac_coords.detach().cpu().double().numpy(), np.cumsum(counts)[:-1])
        numbers = np.split(self.atomic_numbers.cpu().numpy(), np.cumsum(counts)[:-1])
        crystals = []
        for i in range(len(counts)):
            if (largest := int(numbers[i].max())) > LARGEST_ATOMIC_NUMBER:
                raise ValueError(
                    f"crystal {i} of the batch: an atom has the number {largest}, which stands for no element or a "
                    "masked one: draw it again"
                )
            try:
                crystals.append(Crystal(lattice=lattice[i], frac_coords=coords[i], atomic_numbers=numbers[i]))
            except ValueError as error:
                raise ValueError(f"crystal {i} of the batch: {error}") from error
        return crystals

    def crystals_or_none(self) -> list[Crystal | None]:
        """The crystals of the batch; None for what is not a valid ``Crystal`` (a lattice without volume, say)."""
        crystals: list[Crystal | None] = []
        for i in range(len(self)):
            try:
                crystals.extend(self.select([i]).to_crystals())
            except ValueError:
                crystals.append(None)
        return crystals
