"""What the network is told: the time, and properties."""

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from druse_scores.gemnet.config import KnownProperty

NUM_SPACE_GROUPS, NUM_SYSTEM_ENTRIES = 230, 101  # the first entry of a chemical system stands for no element


class Sinusoid(nn.Module):
    """Sines and cosines of a number, alternating: ``sin(x w_j), cos(x w_j)`` with ``w_j = 10,000^(-2 j / width)``."""

    div_term: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("div_term", torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width)))

    def forward(self, x: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
        """Encode."""
        angle = x.unsqueeze(-1).to(self.div_term.dtype) * self.div_term
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


class ChemicalSystemEmbedding(nn.Module):
    """A chemical system, (b, 100) of zeros and ones."""

    def __init__(self, width: int):
        super().__init__()
        self.embedding = nn.Linear(NUM_SYSTEM_ENTRIES, width)

    def forward(self, system: Float[Tensor, "b z"]) -> Float[Tensor, "b w"]:
        """Encode."""
        return self.embedding(nn.functional.pad(system.to(self.embedding.weight.dtype), (1, 0)))


class SpaceGroupEmbedding(nn.Module):
    """A space group by its number; 0 may stand where none is given."""

    def __init__(self, width: int):
        super().__init__()
        self.embedding = nn.Embedding(NUM_SPACE_GROUPS, width)

    def forward(self, number: Num[Tensor, " b"]) -> Float[Tensor, "b w"]:
        """Encode."""
        return self.embedding(number.long().clamp_min(1) - 1)


class UnconditionalEmbedding(nn.Module):
    """What stands in the place of a property that is not told."""

    def __init__(self, width: int):
        super().__init__()
        self.embedding = nn.Embedding(1, width)


class Scaler(nn.Module):
    """Mean and spread of the labels that were learnt, kept with the weights; values come standardised."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.register_buffer("means", torch.tensor([mean]))
        self.register_buffer("stds", torch.tensor([std]))


class PropertyEmbedding(nn.Module):
    """One property, on the scale that is learnt: standardised numbers, systems of zeros and ones, numbers of groups."""

    def __init__(self, known: KnownProperty, width: int):
        super().__init__()
        kinds = {"chemical_system": ChemicalSystemEmbedding, "space_group": SpaceGroupEmbedding}
        self.conditional_embedding_module = kinds.get(known.kind, Sinusoid)(width)
        if not known.adapter:
            self.unconditional_embedding_module = UnconditionalEmbedding(width)
        if known.is_number:
            self.scaler = Scaler(known.mean, known.std)

    def forward(self, values: Tensor) -> Float[Tensor, "b w"]:
        """Encode; not-a-numbers, which may stand where nothing is given, count as zero."""
        return self.conditional_embedding_module(values.nan_to_num())
