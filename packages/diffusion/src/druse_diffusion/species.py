"""Species: discrete diffusion that masks atoms one after the other.

MatterGen (arXiv:2312.03687), appendix A.3; Austin et al., "Structured denoising diffusion models in discrete
state-spaces" (D3PM), arXiv:2107.03006, absorbing state. Of ``num_steps`` steps, step k = 0, 1, ... masks a remaining
atom with probability ``1 / (num_steps - k)``; after k steps an atom is masked with probability ``k / num_steps``.
"""

from dataclasses import dataclass

import torch
from druse_crystal.batch import LARGEST_ATOMIC_NUMBER
from druse_crystal.device import in_float64
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from druse_diffusion.corruption import Corruption, per_atom, sum_over_atoms
from druse_diffusion.random import RandomStreams

NUM_ELEMENTS = LARGEST_ATOMIC_NUMBER
MASK = NUM_ELEMENTS + 1  # the "atomic number" of a masked atom
NUM_CLASSES = NUM_ELEMENTS + 1  # class = atomic number - 1; the last class is the mask
_CERTAIN = 100.0  # a logit above all others by so much is chosen always
_TINY = 1e-20  # keeps logarithms finite, as in the published code


@dataclass(frozen=True, kw_only=True)
class AbsorbingD3PM(Corruption):
    """Absorbing discrete diffusion of atomic numbers.

    Attributes:
        num_steps: number of discrete steps into which t is cut for training.
        cross_entropy_weight: weight of the plain cross entropy in the hybrid loss.
        temperature: of the distribution from which a revealed atom takes its element; 1 is the model's own, less
            prefers likely elements and pays with diversity.
        remask: largest probability that a corrector step hides a revealed atom, so that its element is chosen anew; 0,
            the published sampler, never does.
    """

    num_steps: int = 1000
    cross_entropy_weight: float = 0.01
    temperature: float = 1.0
    remask: float = 0.0

    def steps(self, t: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Number of masking steps that an atom has seen at time t: ``floor((num_steps - 1) t) + 1``; 0 at t = 0."""
        steps = torch.floor((self.num_steps - 1) * t.float()).long() + 1
        return torch.where(t > 0, steps, torch.zeros_like(steps))

    def masked_probability(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Probability that an atom is masked at time t."""
        return self.steps(t).to(t.dtype) / self.num_steps

    def prior(self, num_atoms: Int[Tensor, " b"], *, generator: RandomStreams) -> Int[Tensor, " n"]:
        """All atoms masked."""
        return torch.full((int(num_atoms.sum()),), MASK, device=num_atoms.device)

    def corrupt(
        self, x0: Int[Tensor, " n"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"], *, generator: RandomStreams
    ) -> Int[Tensor, " n"]:
        """Mask each atom with its probability."""
        masked = generator.atom_uniform(num_atoms, 1) < per_atom(self.masked_probability(t), num_atoms)
        return torch.where(masked.squeeze(-1), MASK, x0)

    def posterior_logits(
        self, x0_probabilities: Float[Tensor, "n k"], x_t: Int[Tensor, " n"], step: Int[Tensor, " n"]
    ) -> Float[Tensor, "n k"]:
        """Unnormalised log-probabilities of the class after ``step`` steps, given it after ``step + 1`` steps.

        D3PM eq. 3, with a distribution over x_0 in place of one value.
        """
        classes = torch.arange(NUM_CLASSES, device=x_t.device)
        is_mask = classes == NUM_CLASSES - 1
        kept = (1 - step / self.num_steps).to(x0_probabilities.dtype).unsqueeze(-1)
        real = kept * x0_probabilities * ~is_mask
        marginal = real + is_mask * (1 - real.sum(-1, keepdim=True))
        beta = (1 / (self.num_steps - step)).to(x0_probabilities.dtype).unsqueeze(-1)
        from_mask = torch.where(is_mask, 1.0, beta)
        from_real = (1 - beta) * (classes == (x_t - 1).unsqueeze(-1))
        transition = torch.where((x_t == MASK).unsqueeze(-1), from_mask, from_real)
        return (marginal.clamp(min=0) + _TINY).log() + (transition + _TINY).log()

    def target(
        self, x0: Int[Tensor, " n"], x_t: Int[Tensor, " n"], t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, "n k"]:
        """Logits that leave no doubt."""
        return _CERTAIN * one_hot(x0 - 1, NUM_CLASSES).to(t.dtype)

    def estimate(
        self,
        prediction: Float[Tensor, "n k"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Int[Tensor, " n"]:
        """The likeliest element of a masked atom; others keep theirs."""
        return torch.where(x_t == MASK, prediction[:, :NUM_ELEMENTS].argmax(-1) + 1, x_t)

    def loss(
        self,
        prediction: Float[Tensor, "n k"],
        x0: Int[Tensor, " n"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """Hybrid loss of D3PM (eq. 5), summed over atoms: variational bound plus weighted cross entropy."""
        step = (self.steps(t) - 1).clamp(min=0).repeat_interleave(num_atoms)
        target = x0 - 1
        x0_one_hot = one_hot(target, NUM_CLASSES).to(prediction.dtype)
        true = self.posterior_logits(x0_one_hot, x_t, step).log_softmax(-1)
        model = self.posterior_logits(prediction.softmax(-1), x_t, step).log_softmax(-1)
        divergence = (true.exp() * (true - model)).sum(-1)
        first_step = -model.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        bound = torch.where(step == 0, first_step, divergence)
        plain = cross_entropy(prediction, target, reduction="none")
        return sum_over_atoms(bound + self.cross_entropy_weight * plain, num_atoms)

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
        """Closed-form posterior between two arbitrary times.

        A masked atom is revealed with probability ``(P_t - P_s) / P_t``, P being the masked probability, and then takes
        a real element from the predicted distribution; a revealed atom stays.
        """
        uniform = generator.atom_uniform(num_atoms, 2)
        p_t, p_s = (self.masked_probability(time) for time in (t, s))
        reveal = uniform[:, 0] < per_atom((p_t - p_s) / p_t, num_atoms).squeeze(-1)
        return torch.where((x_t == MASK) & reveal, self.draw(prediction, uniform[:, 1:]), x_t)

    def correct(
        self,
        prediction: Float[Tensor, "n k"],
        x_t: Int[Tensor, " n"],
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Int[Tensor, " n"]:
        """Hide some atoms and reveal as many others on average: detailed balance at constant t, P being as above.

        Probabilities ``r`` to hide and ``r (1 - P) / P`` to reveal, both at most 1, leave the distribution at t as it
        is (Campbell et al., "A continuous time framework for discrete denoising models", arXiv:2205.14987, section
        4.4).
        """
        if self.remask == 0:
            return x_t
        uniform = generator.atom_uniform(num_atoms, 2)
        p = per_atom(self.masked_probability(t), num_atoms).squeeze(-1)
        rate = (p / (1 - p)).clamp(max=self.remask)
        masked = x_t == MASK
        reveal = masked & (uniform[:, 0] < rate * (1 - p) / p)
        hide = ~masked & (uniform[:, 0] < rate)
        return torch.where(reveal, self.draw(prediction, uniform[:, 1:]), x_t).masked_fill(hide, MASK)

    def draw(self, prediction: Float[Tensor, "n k"], uniform: Float[Tensor, "n 1"]) -> Int[Tensor, " n"]:
        """Atomic numbers from predicted logits, by numbers even in (0, 1)."""
        cumulative = (in_float64(prediction[:, :NUM_ELEMENTS]) / self.temperature).softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(cumulative, in_float64(uniform) * cumulative[:, -1:]).squeeze(-1) + 1
        return drawn.clamp(max=NUM_ELEMENTS).to(prediction.device)
