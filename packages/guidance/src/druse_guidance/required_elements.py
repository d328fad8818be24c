"""Lead a model to crystals in which all of some elements occur."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from druse_crystal import CrystalBatch
from druse_crystal.device import in_float64
from druse_diffusion import MASK, NUM_ELEMENTS, Conditions, Prediction, ScoreModel
from jaxtyping import Float, Int
from torch import Tensor

MOST = 10  # elements; the work grows with 2^elements
SMOOTHING = 0.05  # share of the elements' even distribution in what other atoms are expected to become
_SMALLEST = 1e-14  # probabilities below are rounding
_IMPOSSIBLE = -70.0  # their logarithm; finite, so that some element is always left


class RequiredElements:
    """A model that prefers an element the more, the less likely it is to occur in the crystal otherwise.

    Doob's h-transform of "all required elements occur in the end", with masked atoms taken as independent: the logit of
    element e of an atom gains ``log h(e)``, h(e) being the probability that the other masked atoms bring all required
    elements that are still missing once this atom is e. That probability is a sum over subsets S of the missing
    elements, ``sum_S (-1)^|S| prod_j (1 - p_j(S))`` over the other masked atoms j (inclusion and exclusion). While many
    atoms are masked h is near one and nothing changes; the last ones take what is missing.

    Atoms that are revealed in the same step do not know of each other, so that an element can still be absent in the
    end: whoever needs all of them checks, and draws again.

    Attributes:
        model: what is wrapped; the elements that may occur are its business (``AllowedElements``).
        elements: atomic numbers that are to occur, rising.
    """

    def __init__(self, model: ScoreModel, elements: Iterable[int]):
        """Choose the elements.

        Args:
            model: a network, or a wrapper of one.
            elements: atomic numbers, between 1 and 10 of them.

        Raises:
            ValueError: for no element, more than ten, or one without a class.
        """
        self.model = model
        self.elements = tuple(sorted(set(elements)))
        if not 1 <= len(self.elements) <= MOST or not 1 <= self.elements[0] <= self.elements[-1] <= NUM_ELEMENTS:
            raise ValueError(
                f"{len(self.elements)} elements were asked for at once: ask for 1 to {MOST}, none past number "
                f"{NUM_ELEMENTS}"
            )

    def __call__(self, noisy: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None = None) -> Prediction:
        """Scores of the model, and its logits with what is missing preferred."""
        prediction = self.model(noisy, t, conditions)
        logits = prediction.species_logits
        gain = self._gain(in_float64(logits), noisy)
        return replace(prediction, species_logits=logits + gain.to(logits))

    def _gain(self, logits: Float[Tensor, "n k"], noisy: CrystalBatch) -> Float[Tensor, "n k"]:
        device, r = logits.device, len(self.elements)
        noisy = noisy.to(device=device)
        columns = torch.tensor([z - 1 for z in self.elements], device=device)
        bits = 2 ** torch.arange(r, device=device)
        sets = torch.arange(2**r, device=device)
        member = ((sets[:, None] & bits) > 0).to(logits)  # (sets, r)
        crystal, masked = noisy.crystal_index, noisy.atomic_numbers == MASK

        probability = logits[:, :NUM_ELEMENTS].softmax(-1)[:, columns]
        probability = (1 - SMOOTHING) * probability + SMOOTHING / r
        avoids = torch.log1p(-(probability @ member.T).clamp(max=1 - 1e-9)) * masked[:, None]  # (n, sets)
        everybody = avoids.new_zeros(len(noisy), len(sets)).index_add(0, crystal, avoids)
        others = everybody[crystal] - avoids

        inside = (sets[:, None] & sets) == sets  # (target, subset): the subset lies in the target
        sign = 1.0 - 2.0 * (member.sum(-1) % 2)
        brought = others.exp() @ (inside * sign).T  # (n, target): probability that the others bring all of the target
        log_brought = torch.where(brought > _SMALLEST, brought.clamp(min=_SMALLEST).log(), _IMPOSSIBLE)

        missing = self._missing(noisy, columns)[crystal]  # (n,) as a number whose bits are the elements
        gain = log_brought.gather(1, missing[:, None]).expand(-1, logits.shape[1]).clone()
        gain[:, columns] = log_brought.gather(1, missing[:, None] & ~bits)
        return gain * masked[:, None]

    def _missing(self, noisy: CrystalBatch, columns: Int[Tensor, " r"]) -> Int[Tensor, " b"]:
        """For each crystal the required elements that no atom has yet, as bits."""
        there = (noisy.atomic_numbers[:, None] - 1 == columns).long()
        count = there.new_zeros(len(noisy), len(columns)).index_add(0, noisy.crystal_index, there)
        return ((count == 0) * 2 ** torch.arange(len(columns), device=columns.device)).sum(-1)
