"""What crystals can be steered by: a potential's energy above the hull."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from druse_crystal import Crystal
from druse_energetics.potential import Potential
from druse_energetics.reference import Reference
from druse_energetics.relaxation import refusal
from druse_guidance import Pull
from jaxtyping import Float64

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
