"""Where an adapter reaches into a network."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Adaptation(Protocol):
    """Changes features on their way through a network, for one padded batch: B crystals, N atoms, C channels."""

    def crystal(self, features: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Change what the network knows of the whole crystal (time, size, lattice, composition so far)."""
        ...

    def atoms(self, layer: int, features: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Change the scalar features of the atoms before an interaction, counted from 0, and after the last."""
        ...

    def species(self, features: Float[Tensor, "B N C"], logits: Float[Tensor, "B N K"]) -> Float[Tensor, "B N K"]:
        """Change the logits of the elements, seeing what the species head sees."""
        ...
