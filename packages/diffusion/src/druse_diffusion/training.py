"""The training loss: noise the data, ask the network, compare."""

from dataclasses import dataclass

import torch
from druse_crystal import CrystalBatch
from jaxtyping import Float
from torch import Tensor

from druse_diffusion.process import CrystalProcess, ReverseProcess
from druse_diffusion.random import RandomStreams
from druse_diffusion.score import Conditions, ScoreModel

T_MIN = 1e-5  # the smallest time seen in training


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the three losses; the defaults are MatterGen's (arXiv:2312.03687, appendix A.7)."""

    lattice: float = 1.0
    frac_coords: float = 0.1
    species: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TimeDistribution:
    """Times seen in training: even over [1e-5, 1], but for a share of them even over a window.

    Attributes:
        focus: share of the times drawn from the window; 0 is MatterGen's choice (arXiv:2312.03687, appendix A.7).
        low: where the window begins.
        high: where it ends.
    """

    focus: float = 0.0
    low: float = 0.1
    high: float = 0.6

    def __post_init__(self):
        if not 0 <= self.focus < 1:
            raise ValueError(f"focus is {self.focus}, it must be at least 0 and below 1")
        if not T_MIN <= self.low < self.high <= 1:
            raise ValueError(f"the window of times from {self.low} to {self.high} must lie within {T_MIN} and 1")

    def times(self, uniform: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Times from numbers even in (0, 1)."""
        everywhere = T_MIN + (1 - T_MIN) * (uniform - self.focus) / (1 - self.focus)
        if self.focus == 0:
            return everywhere
        window = self.low + (self.high - self.low) * uniform / self.focus
        return torch.where(uniform < self.focus, window, everywhere)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FieldLosses:
    """Loss per crystal, unweighted for each field (see the corruptions for what it sums), and the weighted total."""

    lattice: Float[Tensor, " b"]
    frac_coords: Float[Tensor, " b"]
    species: Float[Tensor, " b"]
    total: Float[Tensor, " b"]


def training_loss(
    process: CrystalProcess,
    model: ScoreModel,
    clean: CrystalBatch,
    *,
    conditions: Conditions | None = None,
    weights: LossWeights = LossWeights(),
    times: TimeDistribution = TimeDistribution(),
    generator: RandomStreams,
    t: Float[Tensor, " b"] | None = None,
    noise: ReverseProcess | None = None,
) -> FieldLosses:
    """Losses of one batch at times drawn from a distribution, or at the given ones.

    Args:
        process: the forward process.
        model: the network.
        clean: crystals with symmetric lattices.
        conditions: what the network is told about the crystals.
        weights: of the three fields in ``total``.
        times: what to draw from.
        generator: one random stream for each crystal.
        t: (b,) times; drawn when None.
        noise: what noises the crystals in place of the forward process, such as one that keeps their symmetry.
    """
    if t is None:
        t = times.times(generator.crystal_uniform(1).squeeze(-1).to(clean.lattice.dtype))
    with torch.no_grad():
        noisy = (noise or process).corrupt(clean, t, generator=generator)
    prediction = model(noisy, t, conditions)
    n = clean.num_atoms
    lattice = process.lattice.loss(prediction.lattice, clean.lattice, noisy.lattice, t, n)
    frac_coords = process.frac_coords.loss(prediction.frac_coords, clean.frac_coords, noisy.frac_coords, t, n)
    species = process.species.loss(prediction.species_logits, clean.atomic_numbers, noisy.atomic_numbers, t, n)
    total = weights.lattice * lattice + weights.frac_coords * frac_coords + weights.species * species
    return FieldLosses(lattice=lattice, frac_coords=frac_coords, species=species, total=total)
