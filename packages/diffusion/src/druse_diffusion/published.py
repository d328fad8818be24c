"""The sampler of the published MatterGen code with its peculiarities.

Druse's own processes differ from it on purpose (README of this package). Here are, as in that code,

* S3: lattice noise of the predictor that is one number z for each crystal: z on the diagonal and sqrt(2) z beside it;
* S6: Langevin steps sized by norms of score and noise, averaged over the batch: crystals depend on their neighbours;
* S8: a training target of the coordinates that is a sum over few images without reduction to the nearest one;
* species that are drawn from the posterior of each of ``num_steps`` discrete steps, so that the grid has as many;
* species at the end that are the likeliest ones.

The published code draws each choice of species twice and uses the second draw; that changes nothing and is left out.
"""

from dataclasses import dataclass

import torch
from druse_crystal.lattice import symmetric_form
from jaxtyping import Float, Int
from torch import Tensor

from druse_diffusion.coordinates import WrappedVE
from druse_diffusion.corruption import per_atom, sum_over_atoms
from druse_diffusion.lattice import LatticeVP, symmetric_noise
from druse_diffusion.process import CrystalProcess
from druse_diffusion.random import RandomStreams
from druse_diffusion.species import NUM_CLASSES, AbsorbingD3PM

_LONGEST_STEP = 1e6


def published_process(num_steps: int = 1000, *, density: float = LatticeVP.density) -> CrystalProcess:
    """The published reverse process, for ``uniform_times(num_steps)`` and one corrector step (arXiv:2312.03687, A.6).

    Args:
        num_steps: of the grid, and so of the species' diffusion; the published code knows only 1,000.
        density: see ``LatticeVP``.
    """
    return CrystalProcess(
        lattice=PublishedLattice(corrector_interval=1 / num_steps, density=density),
        frac_coords=PublishedCoordinates(),
        species=PublishedSpecies(num_steps=num_steps),
    )


@dataclass(frozen=True, kw_only=True)
class PublishedCoordinates(WrappedVE):
    """Fractional coordinates, corrected by steps whose size is the same for the whole batch.

    ``target`` stays exact: what is kept of a structure is pulled by it. The published one is ``training_target``.
    """

    def training_target(
        self, x0: Float[Tensor, "n 3"], x_t: Float[Tensor, "n 3"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, "n 3"]:
        """``sigma`` times the score of few images (S8)."""
        sigma = per_atom(self.sigma(t, num_atoms), num_atoms)
        return sigma * truncated_score(x_t - x0, sigma)

    def correct(
        self,
        prediction: Float[Tensor, "n 3"],
        x_t: Float[Tensor, "n 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "n 3"]:
        """Langevin step with ``eps = 2 (snr <|z|> / <|score|>)^2``, means over the crystals of the batch (S6)."""
        score = prediction / per_atom(self.sigma(t, num_atoms), num_atoms)
        z = generator.atom_normal(num_atoms, 3).to(x_t.dtype)
        norms = [sum_over_atoms(x.square().sum(-1), num_atoms).sqrt() for x in (z, score)]
        eps = (2 * squared_ratio(*norms, snr=self.snr)).clamp(max=_LONGEST_STEP)
        return (x_t + eps * score + (2 * eps).sqrt() * z) % 1.0


@dataclass(frozen=True, kw_only=True)
class PublishedLattice(LatticeVP):
    """Lattices, corrected by steps whose size follows the whole batch, with one random number a predictor step."""

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
        """The ancestral step; a crystal's noise is one number, off the diagonal times sqrt(2) (S3)."""
        mean, std = self.step(prediction, x_t, t, s, num_atoms)
        z = generator.crystal_normal(1).to(x_t.dtype)[:, :, None]
        eye = torch.eye(3, dtype=x_t.dtype, device=x_t.device)
        return mean + std * z * (eye + 2**0.5 * (1 - eye))

    def correct(
        self,
        prediction: Float[Tensor, "b 3 3"],
        x_t: Float[Tensor, "b 3 3"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Float[Tensor, "b 3 3"]:
        """Langevin step with ``eps = 2 alpha (snr <|Z|> / <|score|>)^2``, means over the crystals of the batch (S6)."""
        score = prediction / self.std(t, num_atoms)[:, None, None]
        noise = symmetric_noise(generator).to(x_t.dtype)
        norms = [x.square().sum((-1, -2)).sqrt() for x in (noise, score)]
        alpha = self.corrector_alpha(t)[:, None, None]
        eps = (2 * alpha * squared_ratio(*norms, snr=self.snr)).clamp(max=_LONGEST_STEP)
        return symmetric_form(x_t + eps * score + (2 * eps).sqrt() * noise)


@dataclass(frozen=True, kw_only=True)
class PublishedSpecies(AbsorbingD3PM):
    """Species, drawn from the posterior of each discrete step."""

    def denoise(
        self,
        prediction: Float[Tensor, "n k"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Int[Tensor, " n"]:
        """A class drawn from ``posterior_logits`` with Gumbel noise, one step earlier than t; for s = 0 the likeliest.

        The posterior keeps 1e-20 of every class, so that a revealed atom may in principle change.
        """
        step = (self.steps(t) - 1).repeat_interleave(num_atoms)
        logits = self.posterior_logits(prediction.softmax(-1), x_t, step)
        uniform = generator.atom_uniform(num_atoms, NUM_CLASSES)
        gumbel = -(-uniform.log()).log()
        last = per_atom(s, num_atoms) == 0
        return torch.where(last, logits, logits + gumbel.to(logits.dtype)).argmax(-1) + 1


def truncated_score(displacement: Float[Tensor, "*n d"], sigma: Float[Tensor, "*n 1"]) -> Float[Tensor, "*n d"]:
    """The published score of a wrapped normal (S8): a sum over the images -3 to 3 of the displacement as it comes.

    It is exact for small ``sigma``. For large ones the true score vanishes and this one is about ``-displacement``
    times a number below one over ``sigma^2``.
    """
    images = torch.arange(-3, 4, device=displacement.device, dtype=displacement.dtype)
    shifted = displacement.unsqueeze(-1) + images
    weights = (-(shifted**2) / (2 * sigma.unsqueeze(-1) ** 2)).softmax(-1)
    return -(weights * shifted).sum(-1) / sigma**2


def squared_ratio(noise: Float[Tensor, " b"], score: Float[Tensor, " b"], *, snr: float) -> Float[Tensor, ""]:
    """``(snr <noise> / <score>)^2`` of norms averaged over the batch; 0 where neither has anything to move."""
    return (snr * noise.mean() / score.mean()).square().nan_to_num(nan=0.0, posinf=torch.inf)
