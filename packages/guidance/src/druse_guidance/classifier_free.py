"""Classifier-free guidance: away from what the model would draw anyway, towards what was asked for.

Ho and Salimans, "Classifier-free diffusion guidance", arXiv:2207.12598; MatterGen (arXiv:2312.03687), appendix B.3.
With predictions u without and c with conditions, the guided one is ``u + scale (c - u)``: 0 is the unconditional model,
1 the conditional one. Of species the logits are combined, which is the same rule for their log-probabilities.
"""

from dataclasses import dataclass

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import Conditions, Prediction, ScoreModel
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierFreeGuidance:
    """A model led by its conditions.

    Attributes:
        model: takes conditions.
        scale: how far; see above.
        interval: times from and up to which guidance acts; at others the model is the conditional one (Kynkäänniemi et
            al., "Applying guidance in a limited interval", arXiv:2404.07724).

    Raises:
        ValueError: for a scale or an interval that makes no sense.
    """

    model: ScoreModel
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        check_guidance(self.scale, self.interval)

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """The guided prediction; both passes in one batch, one pass where one is enough."""
        if conditions is None or not conditions.values or self.scale == 0:
            return self.model(noisy, t)
        low, high = self.interval
        inside = (t >= low) & (t <= high)
        if self.scale == 1 or not bool(inside.any()):
            return self.model(noisy, t, conditions)
        both = self.model(_twice(noisy), torch.cat([t, t]), _with_and_without(conditions))
        scale = torch.where(inside, self.scale, 1.0).to(t.dtype)
        on_atoms = scale.repeat_interleave(noisy.num_atoms)[:, None]

        def guided(values: Tensor, weight: Tensor) -> Tensor:
            given, free = values.chunk(2)
            return free + weight * (given - free)

        return Prediction(
            lattice=guided(both.lattice, scale[:, None, None]),
            frac_coords=guided(both.frac_coords, on_atoms),
            species_logits=guided(both.species_logits, on_atoms),
        )


def check_guidance(scale: float, interval: tuple[float, float]) -> None:
    """Raise ValueError for a scale or an interval of times that makes no sense."""
    if not 0 <= scale < float("inf"):
        raise ValueError(f"the guidance scale is {scale}, it must be a number and not negative")
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance acts from t = {low} to {high}: give times between 0 and 1, the lower one first")


def _twice(batch: CrystalBatch) -> CrystalBatch:
    return CrystalBatch(
        lattice=torch.cat([batch.lattice, batch.lattice]),
        frac_coords=torch.cat([batch.frac_coords, batch.frac_coords]),
        atomic_numbers=torch.cat([batch.atomic_numbers, batch.atomic_numbers]),
        num_atoms=torch.cat([batch.num_atoms, batch.num_atoms]),
    )


def _with_and_without(conditions: Conditions) -> Conditions:
    return Conditions(
        values={name: torch.cat([value, value]) for name, value in conditions.values.items()},
        given={name: torch.cat([given, torch.zeros_like(given)]) for name, given in conditions.given.items()},
    )
