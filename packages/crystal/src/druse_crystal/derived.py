"""Labels that follow from a crystal itself, so that nobody has to bring them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from pymatgen.core import Composition, Element

from druse_crystal.composition import composition
from druse_crystal.crystal import Crystal
from druse_crystal.symmetry import space_group


def hhi_of(counts: Mapping[int, int]) -> float:
    """Herfindahl-Hirschman index of where the elements are produced, 0 to 10,000, averaged by weight; NaN if unknown.

    M. W. Gaultois et al., Chem. Mater. 25, 2911 (2013), through pymatgen.

    Args:
        counts: atoms by atomic number.
    """
    from pymatgen.analysis.hhi import HHIModel

    production = HHIModel().get_hhi(Composition({Element.from_Z(z): n for z, n in counts.items()}))[0]
    return float("nan") if production is None else float(production)


def hhi_score(crystal: Crystal) -> float:
    """The index of a crystal's composition; see ``hhi_of``."""
    return hhi_of(Counter(crystal.atomic_numbers.tolist()))


def density(crystal: Crystal) -> float:
    """Mass over volume, g/cm³."""
    return float(composition(crystal).weight) / crystal.volume * _GRAMS_PER_CM3


DERIVED: Mapping[str, tuple[str, Callable[[Crystal], float]]] = {
    "space_group": ("", lambda crystal: float(space_group(crystal).number)),
    "hhi_score": ("", hhi_score),
    "density": ("g/cm³", density),
    "num_elements": ("", lambda crystal: float(len(set(crystal.atomic_numbers.tolist())))),
}
"""By name: unit and function of a crystal. A chemical system is a set of elements, not a number, and not among them."""


def derived_labels(name: str, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
    """One of ``DERIVED`` for many crystals; NaN where it cannot be had.

    Raises:
        ValueError: if there is no such label.
    """
    if name not in DERIVED:
        raise ValueError(f"there is no derived label {name!r}, there are {', '.join(DERIVED)}")
    return np.array([DERIVED[name][1](crystal) for crystal in crystals], dtype=np.float64)


_GRAMS_PER_CM3 = 1.66053906660  # of one atomic mass unit per Å³ (CODATA 2018)
