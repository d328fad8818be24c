"""A reverse process that stays in the subspace of crystals with a given space group and given Wyckoff positions."""

from collections.abc import Sequence

import numpy as np
import torch
from druse_crystal import CrystalBatch
from druse_crystal.lattice import metric_root
from druse_crystal.site_symmetry import SiteSymmetry
from druse_diffusion import Prediction, RandomStreams, ReverseProcess
from jaxtyping import Float, Int
from torch import Tensor


class SymmetricProcess:
    """A process whose crystals are symmetric at every time.

    Noise is drawn for the first atom of each orbit, cut to what its site allows, and taken to the rest by the
    operations of the group, so that each atom is as noisy as the network expects at that time. Predictions are averaged
    over the group: of an equivariant network that only removes rounding. Numbers that decide about species are those of
    the first atom, so that an orbit is of one element. The metric tensor of the lattice is averaged over the point
    group after every step. Whatever the network says, the result has the group, or one that contains it.

    Attributes:
        process: what is wrapped.
    """

    def __init__(self, process: ReverseProcess, sites: Sequence[SiteSymmetry], *, device: torch.device | str = "cpu"):
        """Choose the symmetry.

        Args:
            process: of lattice, coordinates and species.
            sites: of each crystal of the batch.
            device: where the batch is.
        """
        self.process = process

        def stack(parts) -> Tensor:
            return torch.cat([torch.tensor(part, dtype=torch.float32) for part in parts]).to(device)

        self._first = first_atoms(sites, device=device)
        self._origin = stack(s.origin for s in sites)
        self._along = stack(s.operations @ s.free for s in sites)
        self._back = stack(s.free @ np.linalg.inv(s.operations) for s in sites)
        self._size = self._sum(torch.ones(len(self._first), 1, device=device)).clamp(min=1)
        most = max(len(s.rotations) for s in sites)
        self._rotations = torch.zeros(len(sites), most, 3, 3, device=device)
        for i, s in enumerate(sites):
            weight = len(s.rotations) ** -0.5
            self._rotations[i, : len(s.rotations)] = torch.tensor(s.rotations * weight, dtype=torch.float32)

    def prior(self, template: CrystalBatch, *, generator: RandomStreams) -> CrystalBatch:
        """Symmetric noise."""
        x = self.process.prior(template, generator=self._tied(generator))
        return self._symmetric(x.replace(frac_coords=(x.frac_coords + self._origin) % 1.0))

    def corrupt(self, clean: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams) -> CrystalBatch:
        """Symmetric noise on crystals that are symmetric."""
        return self._symmetric(self.process.corrupt(clean, t, generator=self._tied(generator)))

    def estimate(self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"]) -> CrystalBatch:
        """The symmetric crystals that a prediction points to."""
        return self._symmetric(self.process.estimate(self._averaged(prediction), noisy, t))

    def denoise(
        self,
        prediction: Prediction,
        noisy: CrystalBatch,
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> CrystalBatch:
        """A step of the wrapped process within the subspace."""
        prediction = self._averaged(prediction)
        return self._symmetric(self.process.denoise(prediction, noisy, t, s, generator=self._tied(generator)))

    def correct(
        self, prediction: Prediction, noisy: CrystalBatch, t: Float[Tensor, " b"], *, generator: RandomStreams
    ) -> CrystalBatch:
        """A corrector step of the wrapped process within the subspace."""
        prediction = self._averaged(prediction)
        return self._symmetric(self.process.correct(prediction, noisy, t, generator=self._tied(generator)))

    def _tied(self, generator: RandomStreams) -> RandomStreams:
        return _TiedStreams(generator, self._first, self._along)

    def _averaged(self, prediction: Prediction) -> Prediction:
        """Logits averaged over the orbit; coordinates over the group, as the displacements that they stand for.

        The lattice is averaged after the step.
        """
        back = (self._back @ prediction.frac_coords.unsqueeze(-1)).squeeze(-1)
        mean = (self._sum(back) / self._size)[self._first]
        logits = prediction.species_logits
        impossible = logits == -torch.inf
        together = (self._sum(logits.masked_fill(impossible, 0.0)) / self._size)[self._first]
        return Prediction(
            lattice=prediction.lattice,
            frac_coords=(self._along @ mean.unsqueeze(-1)).squeeze(-1),
            species_logits=together.masked_fill(impossible, -torch.inf),
        )

    def _symmetric(self, x: CrystalBatch) -> CrystalBatch:
        metric = x.lattice @ x.lattice.mT
        metric = (self._rotations.mT @ metric.unsqueeze(1) @ self._rotations).sum(1)
        return x.replace(lattice=metric_root(metric))

    def _sum(self, values: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        """Sums over orbits, in the rows of the first atoms."""
        return torch.zeros_like(values).index_add(0, self._first, values)


class _TiedStreams(RandomStreams):
    """Random numbers of which all atoms of an orbit have those of the first, turned with it where they are vectors."""

    def __init__(self, streams: RandomStreams, first: Int[Tensor, " n"], along: Float[Tensor, "n 3 3"]):
        self.streams, self.first, self.along = streams, first, along

    def __len__(self) -> int:
        return len(self.streams)

    def crystal_uniform(self, width: int) -> Float[Tensor, "b {width}"]:
        return self.streams.crystal_uniform(width)

    def crystal_normal(self, width: int) -> Float[Tensor, "b {width}"]:
        return self.streams.crystal_normal(width)

    def atom_uniform(self, num_atoms: Int[Tensor, " b"], width: int) -> Float[Tensor, "n {width}"]:
        return self.streams.atom_uniform(num_atoms, width)[self.first]

    def atom_normal(self, num_atoms: Int[Tensor, " b"], width: int) -> Float[Tensor, "n {width}"]:
        numbers = self.streams.atom_normal(num_atoms, width)[self.first]
        return (self.along @ numbers.unsqueeze(-1)).squeeze(-1) if width == 3 else numbers


def first_atoms(sites: Sequence[SiteSymmetry], *, device: torch.device | str = "cpu") -> Int[Tensor, " n"]:
    """For each atom of a batch, the first atom of its orbit."""
    start, parts = 0, []
    for s in sites:
        parts.append(torch.tensor(s.orbit) + start)
        start += s.num_atoms
    return torch.cat(parts).to(device)
