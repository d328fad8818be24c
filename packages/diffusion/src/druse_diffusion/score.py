"""What a score network takes and gives."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from druse_crystal import CrystalBatch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """A network's output for a batch; never a crystal.

    Attributes:
        lattice: (b, 3, 3) ``std * score`` of the lattice: a Cartesian symmetric tensor, without unit.
        frac_coords: (n, 3) ``sigma * score`` of the fractional coordinates.
        species_logits: (n, k) logits of the clean species, class = atomic number - 1, the last class is the mask.
    """

    lattice: Float[Tensor, "b 3 3"]
    frac_coords: Float[Tensor, "n 3"]
    species_logits: Float[Tensor, "n k"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conditions:
    """Properties that the crystals of a batch shall have.

    Attributes:
        values: by property name, one value a crystal.
        given: by property name, (b,) whether that crystal is conditioned on it.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    given: dict[str, Bool[Tensor, " b"]] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Conditions":
        """The conditions on another device."""
        return Conditions(
            values={name: value.to(device) for name, value in self.values.items()},
            given={name: given.to(device) for name, given in self.given.items()},
        )


@runtime_checkable
class ScoreModel(Protocol):
    """Anything that predicts scores and species of a noisy batch at time t, (b,) in [0, 1]."""

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """Predict."""
        ...
