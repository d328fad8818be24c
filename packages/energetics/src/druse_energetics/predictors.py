"""Predictors of properties by name, each with the potential that it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from druse_crystal.crystal import Crystal

from druse_energetics.potential import Potential, load_potential

type Predict = Callable[[Sequence[Crystal]], np.ndarray]
"""Values of crystals near their minimum, (b,), NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A ``Predict`` that says its unit.

    Attributes:
        unit: of the values.
        predict: the function.
    """

    unit: str
    predict: Predict

    def __call__(self, crystals: Sequence[Crystal]) -> np.ndarray:
        """Values of crystals near their minimum, (b,), NaN where there is none."""
        return self.predict(crystals)


def load_predictor(name: str) -> Predictor:
    """A predictor; potentials are loaded when the first crystals come, and once.

    Args:
        name: of ``PREDICTORS``.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in PREDICTORS:
        raise ValueError(f"there is no predictor {name!r}: choose of {', '.join(PREDICTORS)}")
    return PREDICTORS[name]


@cache
def _potential(name: str) -> Potential:
    return load_potential(name)


def _bulk_moduli(crystals: Sequence[Crystal]) -> np.ndarray:
    from druse_energetics.bulk_modulus import bulk_moduli

    return bulk_moduli(_potential("sevennet-0"), crystals)


def _magnetic_densities(crystals: Sequence[Crystal]) -> np.ndarray:
    from druse_energetics.chgnet import CHGNetPotential
    from druse_energetics.magnetic_density import magnetic_densities

    chgnet = _potential("chgnet")
    assert isinstance(chgnet, CHGNetPotential)
    return magnetic_densities(chgnet, crystals)


def _band_gaps(crystals: Sequence[Crystal]) -> np.ndarray:
    from druse_energetics.band_gap import band_gaps

    return band_gaps(_potential("sevennet-0"), crystals)


PREDICTORS: dict[str, Predictor] = {
    "bulk-modulus": Predictor(unit="GPa", predict=_bulk_moduli),
    "magnetic-density": Predictor(unit="µB/Å³", predict=_magnetic_densities),
    "band-gap": Predictor(unit="eV", predict=_band_gaps),
}
