"""Magnetic densities from the moments that CHGNet predicts."""

from collections.abc import Sequence

import numpy as np
from druse_crystal.crystal import Crystal
from jaxtyping import Float64

from druse_energetics.chgnet import CHGNetPotential
from druse_energetics.potential import unknown_elements


def magnetic_densities(chgnet: CHGNetPotential, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
    """Sum of the absolute moments of the atoms over the volume, µB/Å³, as if all pointed in one direction.

    CHGNet learnt absolute moments, so that a ferrimagnet or an antiferromagnet comes out like a ferromagnet, which is
    how most of the Materials Project was computed. NaN for an element that it does not know.
    """
    usable = [i for i, crystal in enumerate(crystals) if not unknown_elements(chgnet, crystal)]
    densities = np.full(len(crystals), np.nan)
    moments = chgnet.magnetic_moments([crystals[i] for i in usable])
    for i, of_atoms in zip(usable, moments, strict=True):
        densities[i] = np.abs(of_atoms).sum() / crystals[i].volume
    return densities
