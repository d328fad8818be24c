"""The masks of the published sampler: which elements a network may name, and which ones where it is told a system."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import NUM_CLASSES, Conditions, Prediction, ScoreModel
from jaxtyping import Float
from torch import Tensor

SYSTEM = "chemical_system"
_FORBIDDEN = -1e10  # finite, so that guidance may add and subtract it


class PublishedElements:
    """A network whose logits are those of allowed elements, as the published code masks them when it samples.

    The logits of all other classes, the mask's included, become -1e10; in crystals that are told a chemical system also
    those of the elements outside of it. It wraps the network itself: under ``ClassifierFreeGuidance`` the system's mask
    acts on the conditional pass alone, and outweighs the other pass at any scale above zero.

    Attributes:
        model: what is wrapped.
        elements: atomic numbers that are allowed, rising.
    """

    def __init__(self, model: ScoreModel, elements: Iterable[int]):
        self.model = model
        self.elements = tuple(sorted(set(elements)))
        self._forbidden = torch.ones(NUM_CLASSES, dtype=torch.bool)
        self._forbidden[[z - 1 for z in self.elements]] = False

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """Scores of the model, and its logits with what is not allowed out of reach."""
        prediction = self.model(noisy, t, conditions)
        logits = prediction.species_logits.nan_to_num()
        self._forbidden = self._forbidden.to(logits.device)  # moves once
        forbidden = self._forbidden[: logits.shape[-1]]
        if conditions is not None and SYSTEM in conditions.values:
            outside = (conditions.values[SYSTEM] == 0) & conditions.given[SYSTEM][:, None]
            width = min(outside.shape[-1], logits.shape[-1])
            forbidden = forbidden.repeat(len(logits), 1)
            forbidden[:, :width] |= outside[noisy.crystal_index, :width]
        return replace(prediction, species_logits=logits.masked_fill(forbidden, _FORBIDDEN))
