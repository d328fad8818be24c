"""What the forward process of one field must offer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from druse_diffusion.random import RandomStreams


class Corruption(ABC):
    """The forward process of ONE field of a crystal, with its own time reversal.

    A field is a tensor with one row per atom (fractional coordinates, species) or one per crystal (lattice). Time ``t``
    holds one number per crystal: 0 is data, 1 the prior. ``prediction`` is the score network's output for the field.
    """

    @abstractmethod
    def prior(self, num_atoms: Int[Tensor, " b"], *, generator: RandomStreams) -> Tensor:
        """Draw x at t = 1."""

    @abstractmethod
    def corrupt(
        self, x0: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"], *, generator: RandomStreams
    ) -> Tensor:
        """Draw x_t given x0."""

    @abstractmethod
    def target(self, x0: Tensor, x_t: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Tensor:
        """What a perfect network predicts at x_t if x0 is the only data there are."""

    @abstractmethod
    def estimate(self, prediction: Tensor, x_t: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Tensor:
        """The data that a prediction at x_t points to."""

    @abstractmethod
    def loss(
        self, prediction: Tensor, x0: Tensor, x_t: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Training loss of every crystal."""

    @abstractmethod
    def denoise(
        self,
        prediction: Tensor,
        x_t: Tensor,
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Tensor:
        """Draw x_s given x_t, for any s < t. At s = 0 nothing random is left of a continuous field."""

    def correct(
        self,
        prediction: Tensor,
        x_t: Tensor,
        t: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Tensor:
        """One step at constant t towards the distribution there; a field without a corrector stays as it is."""
        return x_t


@dataclass(frozen=True, kw_only=True)
class CooledCorruption(Corruption):
    """A continuous field whose noise can be scaled in sampling.

    Attributes:
        temperature: scales the variance of the noise that sampling adds; 1 draws from the model's own distribution,
            less draws nearer to its modes and pays with diversity.
        cold_below: latest time at which the temperature acts; at later times, where the structure is still to be
            chosen, the noise is the process's own.
    """

    temperature: float = 1.0
    cold_below: float = 1.0

    def noise_scale(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Factor of the noise: ``sqrt(temperature)`` at times up to ``cold_below``, 1 at later ones."""
        return torch.where(t <= self.cold_below, self.temperature**0.5, torch.ones_like(t))


class Fixed(Corruption):
    """A field that is given and never noised, such as the species in crystal structure prediction."""

    def prior(self, num_atoms: Int[Tensor, " b"], *, generator: RandomStreams) -> Tensor:
        """Raises ValueError: a fixed field has no prior, its values come from the template."""
        raise ValueError("a Fixed field has no prior: give its values in the template")

    def corrupt(
        self, x0: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"], *, generator: RandomStreams
    ) -> Tensor:
        """The field itself."""
        return x0

    def target(self, x0: Tensor, x_t: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Tensor:
        """Zeros, for nothing is asked of a network."""
        return x_t.new_zeros(x_t.shape)

    def estimate(self, prediction: Tensor, x_t: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Tensor:
        """The field itself."""
        return x_t

    def loss(
        self, prediction: Tensor, x0: Tensor, x_t: Tensor, t: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Zero."""
        return t.new_zeros(len(num_atoms))

    def denoise(
        self,
        prediction: Tensor,
        x_t: Tensor,
        t: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        num_atoms: Int[Tensor, " b"],
        *,
        generator: RandomStreams,
    ) -> Tensor:
        """The field itself."""
        return x_t


def per_atom(values: Float[Tensor, " b"], num_atoms: Int[Tensor, " b"]) -> Float[Tensor, "n 1"]:
    """Repeat one value per crystal for each of its atoms, as a column."""
    return values.repeat_interleave(num_atoms).unsqueeze(-1)


def sum_over_atoms(values: Float[Tensor, " n"], num_atoms: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Sum per-atom values over each crystal."""
    index = num_atoms.new_tensor(range(len(num_atoms))).repeat_interleave(num_atoms)
    return values.new_zeros(len(num_atoms)).index_add(0, index, values)
