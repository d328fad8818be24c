"""Bulk moduli from an equation of state: energies of the crystal at several volumes, by any potential."""

from collections.abc import Sequence

import numpy as np
from ase.units import GPa
from druse_crystal.crystal import Crystal
from jaxtyping import Float64

from druse_energetics.potential import Potential, unknown_elements

STRAINS = np.linspace(-0.03, 0.03, 7)
"""Of the lattice; volumes from 91 to 109 % of the one given."""


def bulk_moduli(
    potential: Potential, crystals: Sequence[Crystal], *, strains: Sequence[float] = tuple(STRAINS)
) -> Float64[np.ndarray, " b"]:
    """Bulk moduli in GPa of crystals near their minimum, by the third-order Birch-Murnaghan equation of state.

    Atoms keep their fractional coordinates and the cell its shape, so that the modulus of a crystal with inner degrees
    of freedom comes out too large, if anything. F. Birch, Phys. Rev. 71, 809 (1947), fitted by ASE.

    Args:
        potential: for the energies.
        crystals: relaxed, or as DFT relaxed them.
        strains: of the lattice vectors, at least four different ones around zero.

    Returns:
        (b,) NaN where the potential does not know an element, or the energies have no minimum among the volumes.
    """
    usable = [i for i, crystal in enumerate(crystals) if not unknown_elements(potential, crystal)]
    strained = [crystals[i].replace(lattice=(1 + e) * crystals[i].lattice) for i in usable for e in strains]
    moduli = np.full(len(crystals), np.nan)
    if not strained:
        return moduli
    energies = potential.energies(strained).reshape(len(usable), len(strains))
    for row, i in enumerate(usable):
        moduli[i] = fit_bulk_modulus(crystals[i].volume * (1 + np.array(strains)) ** 3, energies[row])
    return moduli


def fit_bulk_modulus(volumes: Float64[np.ndarray, " v"], energies: Float64[np.ndarray, " v"]) -> float:
    """The bulk modulus in GPa of an equation of state, from volumes in Å³ and energies in eV of one cell.

    NaN if the fit fails, or its minimum lies outside of the volumes.
    """
    from ase.eos import EquationOfState

    try:
        volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    except (RuntimeError, ValueError, TypeError):  # scipy's, of energies that are no equation of state
        return float("nan")
    inside = volumes.min() <= volume <= volumes.max() and np.isfinite(modulus) and modulus > 0
    return float(modulus) / GPa if inside else float("nan")
