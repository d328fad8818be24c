"""What crystals can be steered by: a potential's energy above the hull."""

from collections.abc import Sequence

import numpy as np
from druse_crystal import Crystal
from druse_energetics.potential import Potential
from druse_energetics.reference import Reference
from druse_energetics.relaxation import refusal
from druse_guidance import Reward
from jaxtyping import Float64

from druse.screening import above_hull, judged_energies

HULL = "energy_above_hull"


def hull_reward(potential: Potential, reference: Reference) -> Reward:
    """The judged energy above hull of crystals as they are, in eV/atom with its sign turned.

    Not a number for what the potential cannot judge (overlapping atoms, a density of no solid, an element that it or
    the reference lacks) or has no believable energy.
    """

    def reward(crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        rewards = np.full(len(crystals), np.nan)
        usable = [i for i, crystal in enumerate(crystals) if refusal(crystal, potential) is None]
        found = judged_energies(potential, [crystals[i] for i in usable]) if usable else []
        for i, energy in zip(usable, found, strict=True):
            rewards[i] = -above_hull(reference, crystals[i], energy)
        return rewards

    return reward
