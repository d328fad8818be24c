"""Fractional coordinates: wrapped, variance-exploding diffusion whose width falls with the number of atoms.

MatterGen (arXiv:2312.03687), appendix A.4 (coordinate diffusion): on the unit torus

    x_t = (x_0 + sigma(t, N) z) mod 1,        sigma(t, N) = sigma_min (sigma_max / sigma_min)^t N^(-1/3),

and the network predicts ``sigma * score``. The score of the wrapped normal is evaluated exactly (to round-off), by the
sum over images where sigma is small and by its Fourier series where sigma is large.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from druse_diffusion.corruption import CooledCorruption, per_atom, sum_over_atoms
from druse_diffusion.random import RandomStreams

_SERIES_SWITCH = 0.4  # at this sigma both series are exact to 1e-15 with the terms below
_IMAGES = 3
_HARMONICS = 4


def wrapped_normal_score(displacement: Float[Tensor, "*n d"], sigma: Float[Tensor, "*n 1"]) -> Float[Tensor, "*n d"]:
    """Score ``d log p(x) / dx`` of a wrapped normal of width ``sigma`` at ``displacement`` from its mean.

    Jing et al., "Torsional diffusion", arXiv:2206.01729, eq. 3, per axis of the unit torus.
    """
    d = displacement - displacement.round()
    small = sigma.clamp(max=_SERIES_SWITCH)
    images = torch.arange(-_IMAGES, _IMAGES + 1, device=d.device, dtype=d.dtype)
    shifted = d.unsqueeze(-1) + images
    weights = (-(shifted**2) / (2 * small.unsqueeze(-1) ** 2)).softmax(-1)
    by_images = -(weights * shifted).sum(-1) / small**2

    large = sigma.clamp(min=_SERIES_SWITCH)
    m = torch.arange(1, _HARMONICS + 1, device=d.device, dtype=d.dtype)
    damping = torch.exp(-2 * (math.pi * m * large.unsqueeze(-1)) ** 2)
    phase = 2 * math.pi * m * d.unsqueeze(-1)
    density = 1 + 2 * (damping * phase.cos()).sum(-1)
    by_harmonics = -4 * math.pi * (m * damping * phase.sin()).sum(-1) / density
    return torch.where(sigma < _SERIES_SWITCH, by_images, by_harmonics)


@dataclass(frozen=True, kw_only=True)
class WrappedVE(CooledCorruption):
    """Wrapped variance-exploding diffusion of fractional coordinates.

    Attributes:
        sigma_min: width at t = 0 of a crystal with one atom (fractional units).
        sigma_max: width at t = 1 of a crystal with one atom.
        snr: signal-to-noise ratio of the Langevin corrector.
        temperature: see ``CooledCorruption``.
        cold_below: see ``CooledCorruption``.
    """

    sigma_min: float = 0.01
    sigma_max: float = 5.0
    snr: float = 0.4

    def sigma(self, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Width of the noise; exactly 0 at t = 0, where the data are."""
        sigma = self.sigma_min * (self.sigma_max / self.sigma_min) ** t * num_atoms.to(t.dtype) ** (-1 / 3)
        return torch.where(t > 0, sigma, torch.zeros_like(sigma))

    def prior(self, num_atoms: Int[Tensor, " b"], *, generator: RandomStreams) -> Float[Tensor, "n 3"]:
        """Noise of the largest width around the origin, wrapped: nearly uniform."""
        ones = torch.ones(len(num_atoms), device=num_atoms.device)
        z = generator.atom_normal(num_atoms, 3)
        return (per_atom(self.sigma(ones, num_atoms), num_atoms) * z) % 1.0

    def corrupt(
        self,
        x0: Float[Tensor, "n 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "n 3"]:
        """``(x0 + sigma z) mod 1``."""
        z = generator.atom_normal(num_atoms, 3).to(x0.dtype)
        return (x0 + per_atom(self.sigma(t, num_atoms), num_atoms) * z) % 1.0

    def target(
        self, x0: Float[Tensor, "n 3"], x_t: Float[Tensor, "n 3"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, "n 3"]:
        """``sigma score(x_t | x_0)``."""
        sigma = per_atom(self.sigma(t, num_atoms), num_atoms)
        return sigma * wrapped_normal_score(x_t - x0, sigma)

    def training_target(
        self, x0: Float[Tensor, "n 3"], x_t: Float[Tensor, "n 3"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, "n 3"]:
        """What ``loss`` compares with."""
        return self.target(x0, x_t, t, num_atoms)

    def estimate(
        self,
        prediction: Float[Tensor, "n 3"],
        x_t: Float[Tensor, "n 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, "n 3"]:
        """``(x_t + sigma^2 score) mod 1`` (Tweedie's formula), of little meaning where sigma is much of the cell."""
        return (x_t + per_atom(self.sigma(t, num_atoms), num_atoms) * prediction) % 1.0

    def loss(
        self,
        prediction: Float[Tensor, "n 3"],
        x0: Float[Tensor, "n 3"],
        x_t: Float[Tensor, "n 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """``sum over atoms of mean over axes of |sigma score(x_t | x_0) - prediction|^2``."""
        target = self.training_target(x0, x_t, t, num_atoms)
        return sum_over_atoms((target - prediction).square().mean(-1), num_atoms)

    def denoise(
        self,
        prediction: Float[Tensor, "n 3"],
        x_t: Float[Tensor, "n 3"],
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "n 3"]:
        """Ancestral step (Song et al., arXiv:2011.13456, appendix F): mean ``x + (sigma_t^2 - sigma_s^2) score``."""
        sigma_t, sigma_s = (per_atom(self.sigma(time, num_atoms), num_atoms) for time in (t, s))
        variance = sigma_t**2 - sigma_s**2
        z = per_atom(self.noise_scale(t), num_atoms) * generator.atom_normal(num_atoms, 3).to(x_t.dtype)
        return (x_t + variance * prediction / sigma_t + variance.sqrt() * sigma_s / sigma_t * z) % 1.0

    def correct(
        self,
        prediction: Float[Tensor, "n 3"],
        x_t: Float[Tensor, "n 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "n 3"]:
        """Langevin step ``x + eps score + sqrt(2 eps) z`` with ``eps = 2 (snr sigma)^2``.

        That is the published rule ``eps = 2 (snr |z| / |score|)^2`` for a score of the expected size ``|z| / sigma``.
        With the norm of the crystal's own score the step would depend on the state, longer where the score is small,
        and so spread the crystals: a wrapped normal becomes 1.4 times as wide for one atom, 1.2 times for four.
        """
        sigma = per_atom(self.sigma(t, num_atoms), num_atoms)
        eps = 2 * (self.snr * sigma) ** 2
        z = per_atom(self.noise_scale(t), num_atoms) * generator.atom_normal(num_atoms, 3).to(x_t.dtype)
        return (x_t + eps * prediction / sigma + (2 * eps).sqrt() * z) % 1.0
