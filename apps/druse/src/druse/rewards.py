"""What crystals can be steered by: a potential's energy above the hull, and properties, exact or predicted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from druse_crystal import Crystal
from druse_crystal.derived import DERIVED, derived_labels
from druse_energetics.potential import Potential
from druse_energetics.predictors import Predict
from druse_energetics.reference import Reference
from druse_energetics.relaxation import refusal
from druse_guidance import Pull, Reward, Target
from jaxtyping import Float64

from druse.obtained import OBTAINABLE, PREDICTED, read_target
from druse.screening import above_hull, judged_energies

HULL = "energy_above_hull"


@dataclass(frozen=True, kw_only=True, eq=False)
class HullReward:
    """The judged energy above hull of crystals as they are, in eV/atom with its sign turned, and its gradient.

    Attributes:
        potential: for energies, forces and stresses.
        reference: for the hull.
    """

    potential: Potential
    reference: Reference

    def __call__(self, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        """Rewards; not a number for what cannot be judged.

        That is: overlapping atoms, a density of no solid, an element that potential or reference lack, an energy that
        is not to be believed.
        """
        rewards = np.full(len(crystals), np.nan)
        usable = self._usable(crystals)
        found = judged_energies(self.potential, [crystals[i] for i in usable]) if usable else []
        for i, energy in zip(usable, found, strict=True):
            rewards[i] = -above_hull(self.reference, crystals[i], energy)
        return rewards

    def gradient(self, crystals: Sequence[Crystal]) -> list[Pull | None]:
        """Forces and stresses, for an energy in eV/atom; None for what cannot be judged."""
        pulls: list[Pull | None] = [None] * len(crystals)
        usable = self._usable(crystals)
        evaluations = self.potential.evaluate([crystals[i] for i in usable]) if usable else []
        for i, found in zip(usable, evaluations, strict=True):
            n, volume = crystals[i].num_atoms, crystals[i].volume
            pulls[i] = Pull(
                on_atoms=torch.tensor(found.forces / n).float(),
                on_strain=torch.tensor(-volume * found.stress / n).float(),
            )
        return pulls

    def _usable(self, crystals: Sequence[Crystal]) -> list[int]:
        known = self.reference.hull.elements
        return [
            i
            for i, crystal in enumerate(crystals)
            if refusal(crystal, self.potential) is None and set(crystal.atomic_numbers.tolist()) <= known
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetReward:
    """How far a property is from a target, with its sign turned; 0 for what meets it.

    Distances count in units of ``TOLERANCES`` times the tolerance of the property, which makes those of an energy above
    the hull eV/atom, so that a strength means the same for all.

    Attributes:
        target: a number, a range or an inequality.
        tolerance: of the property.
        predict: values of crystals, exact where they follow from the crystal.
        potential: crystals of which it refuses to judge the energy have no reward.
    """

    target: Target
    tolerance: float
    predict: Predict
    potential: Potential

    def __call__(self, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        """Rewards; not a number for what cannot be predicted, or is no solid."""
        rewards = np.full(len(crystals), np.nan)
        usable = [i for i, crystal in enumerate(crystals) if refusal(crystal, self.potential) is None]
        if usable:
            values = np.asarray(self.predict([crystals[i] for i in usable]), dtype=np.float64)
            off = np.maximum(np.maximum(self.target.low - values, values - self.target.high), 0)
            rewards[usable] = -off / (TOLERANCES * self.tolerance)
        return rewards


TOLERANCES = 20
EXACT = tuple(name for name, found in OBTAINABLE.items() if name in DERIVED and found.property.is_number)
"""The numbers that follow from a crystal itself."""


def rewards_of(text: str | None, *, potential: Potential, reference: Reference) -> dict[str, Reward]:
    """The rewards that can be asked for by name, and the one that a text asks for, if it is a target.

    Args:
        text: ``energy_above_hull``, a target of a number that is predicted or follows from the crystal, such as
            ``ml_bulk_modulus>=300`` or ``hhi_score<=1500``, or anything else, of which nothing is made.
        potential: for energies, forces and stresses.
        reference: for the hull.

    Raises:
        ValueError: for a target that makes no sense, or of another property.
    """
    rewards: dict[str, Reward] = {HULL: HullReward(potential=potential, reference=reference)}
    if text is not None and (target := steering_target(text)) is not None:
        rewards[text] = _target_reward(target, potential)
    return rewards


def steering_target(text: str | None) -> Target | None:
    """What to steer by, if it is the target of a property.

    Raises:
        ValueError: for a property that nothing tells, or a value that no crystal has.
    """
    found = re.match(r"\s*(\w+)\s*[<>=]", text or "")
    if text is None or not found:
        return None
    if found[1] not in (*PREDICTED, *EXACT):
        raise ValueError(
            f"{text!r} is nothing to steer by: steer by {HULL}, by a target of {', '.join([*PREDICTED, *EXACT])}, or "
            "by a function (FILE.py:FUNCTION)"
        )
    return read_target(text)


def _target_reward(target: Target, potential: Potential) -> TargetReward:
    name = target.property.name
    return TargetReward(
        target=target,
        tolerance=OBTAINABLE[name].tolerance,
        predict=PREDICTED.get(name, partial(derived_labels, name)),
        potential=potential,
    )
