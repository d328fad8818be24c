"""Units of properties: how they are spelled, which property has which, and what numbers are usual in them."""

import unicodedata
from collections.abc import Mapping

USUAL: Mapping[str, tuple[float, float]] = {
    "GPa": (1.0, 1000.0),
    "MPa": (1e3, 1e6),
    "kbar": (10.0, 1e4),
    "eV": (-0.01, 25.0),
    "meV": (-10.0, 25e3),
    "eV/atom": (-15.0, 10.0),
    "meV/atom": (-15e3, 10e3),
    "µB/Å³": (-0.001, 0.5),
    "g/cm³": (0.05, 25.0),
    "kg/m³": (50.0, 25e3),
}
"""Between which numbers elastic moduli, band gaps, energies, magnetisations and densities of crystals lie, by unit.

Diamond's bulk modulus is 443 GPa, solid neon's 1 GPa; the gap of solid helium is 20 eV; iron has 0.19 µB/Å³, osmium
22.6 g/cm³.
"""
UNITS: Mapping[str, str] = {
    "density": "g/cm³",
    "dft_band_gap": "eV",
    "dft_bulk_modulus": "GPa",
    "dft_mag_density": "µB/Å³",
    "dft_shear_modulus": "GPa",
    "energy_above_hull": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "hhi_score": "",
    "ml_bulk_modulus": "GPa",
    "num_elements": "",
}
"""Units of well-known properties by name; empty for a pure number."""
PURE: Mapping[str, tuple[float, float]] = {"hhi_score": (100.0, 10_000.0), "num_elements": (1.0, 118.0)}
"""Between which numbers well-known pure numbers lie, by name."""
_REWRITTEN = {"angstrom": "a", "ang": "a", "å": "a", "mu": "u", "\N{GREEK SMALL LETTER MU}": "u"}


def usual_spelling(unit: str) -> str:
    """The spelling of ``USUAL`` of a unit that differs from it in case, powers or symbols (``uB/A^3``); others stay."""
    return _SPELLINGS.get(_plain(unit), unit)


def other_unit(one: str, another: str) -> bool:
    """Whether two units, in any spelling, are known to be different ones."""
    one, another = usual_spelling(one), usual_spelling(another)
    return one in USUAL and another in USUAL and one != another


def _plain(unit: str) -> str:
    """A unit in small ASCII letters, digits and slashes."""
    plain = unicodedata.normalize("NFKC", unit).casefold()  # one Å, one µ, no superscripts
    for symbol, letters in _REWRITTEN.items():
        plain = plain.replace(symbol, letters)
    return "".join(letter for letter in plain if letter.isalnum() or letter == "/")


_SPELLINGS = {_plain(unit): unit for unit in USUAL}
