"""Lattices: variance-preserving diffusion of symmetric matrices towards a density-aware cubic mean.

MatterGen (arXiv:2312.03687), appendix A.5 (lattice diffusion). With ``m(t) = exp(-t^2 (beta_max - beta_min) / 4 -
t beta_min / 2)``,

    L_t = m L_0 + (1 - m) mu(N) I + sqrt((1 - m^2) v(N)) Z,
    mu(N) = (N / density)^(1/3),    v(N) = variance_scale N^(2/3),

where Z is a symmetric matrix whose six entries have unit variance. The network predicts ``std * score``.
"""

from dataclasses import dataclass

import torch
from druse_crystal.lattice import symmetric_form
from jaxtyping import Float, Int
from torch import Tensor

from druse_diffusion.corruption import CooledCorruption
from druse_diffusion.random import RandomStreams


def symmetric_noise(generator: RandomStreams) -> Float[Tensor, "b 3 3"]:
    """Symmetric matrices whose six independent entries are standard normal."""
    xx, yy, zz, yz, xz, xy = generator.crystal_normal(6).unbind(-1)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).unflatten(-1, (3, 3))


@dataclass(frozen=True, kw_only=True)
class LatticeVP(CooledCorruption):
    """Variance-preserving diffusion of symmetric lattices (Å).

    Attributes:
        beta_min: noise rate at t = 0.
        beta_max: noise rate at t = 1.
        density: atoms per Å³ of the cell at the prior's mean (the mean density of Alex-MP-20).
        variance_scale: variance of each entry of the prior, over ``N^(2/3)``, in Å².
        snr: signal-to-noise ratio of the Langevin corrector.
        corrector_interval: the corrector's step falls by ``m(t)^2 / m(t - corrector_interval)^2``, the published
            sampler's time step.
        temperature: see ``CooledCorruption``.
        cold_below: see ``CooledCorruption``.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    density: float = 0.05771451654022283
    variance_scale: float = 0.25
    snr: float = 0.2
    corrector_interval: float = 0.001

    def mean_coefficient(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """``m(t)``."""
        return torch.exp(-0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min)

    def prior_mean(self, num_atoms: Int[Tensor, " b"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "b 3 3"]:
        """``mu(N) I``, in Å."""
        edge = (num_atoms.to(dtype) / self.density) ** (1 / 3)
        return edge[:, None, None] * torch.eye(3, dtype=dtype, device=num_atoms.device)

    def prior_variance(self, num_atoms: Int[Tensor, " b"], dtype: torch.dtype = torch.float32) -> Float[Tensor, " b"]:
        """``v(N)``, in Å²."""
        return self.variance_scale * num_atoms.to(dtype) ** (2 / 3)

    def std(self, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Standard deviation of each entry of L_t given L_0, in Å."""
        return ((1 - self.mean_coefficient(t) ** 2) * self.prior_variance(num_atoms, t.dtype)).sqrt()

    def mean(
        self, x0: Float[Tensor, "b 3 3"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, "b 3 3"]:
        """Mean of L_t given L_0."""
        m = self.mean_coefficient(t)[:, None, None]
        return m * x0 + (1 - m) * self.prior_mean(num_atoms, x0.dtype)

    def prior(self, num_atoms: Int[Tensor, " b"], *, generator: RandomStreams) -> Float[Tensor, "b 3 3"]:
        """``mu I + sqrt(v) Z``."""
        noise = symmetric_noise(generator)
        return self.prior_mean(num_atoms) + self.prior_variance(num_atoms).sqrt()[:, None, None] * noise

    def corrupt(
        self,
        x0: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "b 3 3"]:
        """Draw L_t; ``x0`` must be symmetric (``druse_crystal.lattice.symmetric_form``)."""
        noise = symmetric_noise(generator).to(x0.dtype)
        return self.mean(x0, t, num_atoms) + self.std(t, num_atoms)[:, None, None] * noise

    def target(
        self,
        x0: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, "b 3 3"]:
        """``std score(L_t | L_0)``."""
        return -(x_t - self.mean(x0, t, num_atoms)) / self.std(t, num_atoms)[:, None, None]

    def estimate(
        self,
        prediction: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, "b 3 3"]:
        """``(L_t + std^2 score - (1 - m) mu) / m`` (Tweedie's formula)."""
        m, std = self.mean_coefficient(t)[:, None, None], self.std(t, num_atoms)[:, None, None]
        return (x_t + std * prediction - (1 - m) * self.prior_mean(num_atoms, x_t.dtype)) / m

    def loss(
        self,
        prediction: Float[Tensor, "b 3 3"],
        x0: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """Mean over the nine entries of ``|std score(L_t | L_0) - prediction|^2``."""
        return (self.target(x0, x_t, t, num_atoms) - prediction).square().mean((-1, -2))

    def denoise(
        self,
        prediction: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "b 3 3"]:
        """Ancestral step of the variance-preserving process about ``mu``, with full symmetric noise."""
        mean, std = self.step(prediction, x_t, t, s, num_atoms)
        noise = self.noise_scale(t)[:, None, None] * symmetric_noise(generator).to(x_t.dtype)
        return mean + std * noise

    def step(
        self,
        prediction: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 1 1"]]:
        """Mean of the ancestral step from t to s, and the standard deviation of its noise, in Å."""
        a = (self.mean_coefficient(t) / self.mean_coefficient(s)).clamp(min=1e-3)
        std_t, std_s = self.std(t, num_atoms), self.std(s, num_atoms)
        variance = self.prior_variance(num_atoms, t.dtype) * (1 - a**2)
        noise_std = variance.sqrt() * std_s / std_t
        a, std_t, variance, noise_std = (v[:, None, None] for v in (a, std_t, variance, noise_std))
        mu = self.prior_mean(num_atoms, x_t.dtype)
        return mu + (x_t - mu) / a + variance / a * prediction / std_t, noise_std

    def correct(
        self,
        prediction: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "b 3 3"]:
        """Langevin step with ``eps = 2 alpha (snr std)^2``; the result is brought to its positive symmetric form.

        See ``WrappedVE.correct`` for why the step does not follow the norm of the score.
        """
        std = self.std(t, num_atoms)[:, None, None]
        eps = 2 * self.corrector_alpha(t)[:, None, None] * (self.snr * std) ** 2
        noise = self.noise_scale(t)[:, None, None] * symmetric_noise(generator).to(x_t.dtype)
        return symmetric_form(x_t + eps * prediction / std + (2 * eps).sqrt() * noise)

    def corrector_alpha(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """``m(t)^2 / m(t - corrector_interval)^2``, by which the corrector's step is shortened."""
        earlier = (t - self.corrector_interval).clamp(min=0)
        return (self.mean_coefficient(t) / self.mean_coefficient(earlier)) ** 2
