"""What speaks against the elements of a crystal: scarce, from few countries, radioactive, poisonous, dear."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from druse_crystal.composition import composition
from druse_crystal.crystal import Crystal
from pymatgen.core import Element

SCARCE = 0.1
"""mg/kg of the earth's crust; rarer elements are flagged. Silver has 0.075, mercury 0.085, cadmium 0.15."""
CONCENTRATED = 2500.0
"""Herfindahl-Hirschman index above which a market is highly concentrated (US Department of Justice, 2010)."""
DEAR = 1000.0
"""USD/kg of elements in a compound, above which it is flagged; silver cost 781 in 2013, germanium 1450."""

_IARC = "carcinogenic with its compounds, IARC group 1"
_ICH_1 = "ICH Q3D class 1, at most {} µg a day"
TOXIC: Mapping[str, str] = {
    "Be": _IARC,
    "Ni": "compounds carcinogenic, IARC group 1",
    "As": f"{_ICH_1.format(15)}; {_IARC}",
    "Cd": f"{_ICH_1.format(5)}; {_IARC}",
    "Hg": _ICH_1.format(30),
    "Tl": "ICH Q3D class 2B, at most 8 µg a day",
    "Pb": _ICH_1.format(5),
}
"""Elements that are poisonous in most of their compounds, and who says so. Oral exposure permitted by the ICH guideline
Q3D(R2) on elemental impurities (2022), of its 24 elements those with at most 30 µg a day; IARC Monographs 100C (2012),
of its metals those listed in every state of charge (chromium is, as chromium(VI) only, and left out)."""


@dataclass(frozen=True, kw_only=True)
class ElementFacts:
    """Facts about the elements of a crystal; None where a source says nothing about one of them.

    Attributes:
        rarest: the element that is rarest in the earth's crust, of those with a known abundance.
        abundance: of that one, in mg/kg.
        hhi_production: Herfindahl-Hirschman index of where the elements are produced, 0 to 10,000, averaged by weight.
        hhi_reserve: the same of where the reserves are.
        price: what the elements of a kilogram cost, in USD of 2013.
        radioactive: elements without a stable isotope, but bismuth.
        toxic: elements of ``TOXIC``.
    """

    rarest: str | None
    abundance: float | None
    hhi_production: float | None
    hhi_reserve: float | None
    price: float | None
    radioactive: tuple[str, ...]
    toxic: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """What speaks against the elements, in words; each begins with the name of the flag and a colon."""
        found = []
        if self.radioactive:
            found.append(f"radioactive: {', '.join(self.radioactive)}")
        found += [f"toxic: {symbol}, {TOXIC[symbol]}" for symbol in self.toxic]
        if self.abundance is not None and self.abundance < SCARCE:
            found.append(f"scarce: {self.rarest}, {self.abundance:.2g} mg/kg of the earth's crust")
        for name, value in (("production", self.hhi_production), ("reserves", self.hhi_reserve)):
            if value is not None and value > CONCENTRATED:
                found.append(f"concentrated {name}: Herfindahl-Hirschman index {value:.0f}")
        if self.price is not None and self.price > DEAR:
            found.append(f"dear: {self.price:,.0f} USD/kg in 2013")
        return tuple(found)


def element_facts(crystal: Crystal) -> ElementFacts:
    """Look up the elements of a crystal.

    Sources: abundance CRC Handbook of Chemistry and Physics, 92nd edition (2011), through SMACT; Herfindahl-Hirschman
    indices M. W. Gaultois et al., Chem. Mater. 25, 2911 (2013), through pymatgen; prices as pymatgen's ``cost`` lists
    them (Wolfram Alpha and Wikipedia, September 2013), of the pure elements, in laboratory quality for some;
    radioactivity pymatgen's ``is_radioactive``; toxicity as in ``TOXIC``.
    """
    from pymatgen.analysis.hhi import HHIModel

    found = composition(crystal)
    elements = sorted(found.elements)
    abundances = {e.symbol: known for e in elements if (known := _abundance(e.symbol)) is not None}
    rarest = min(abundances, key=lambda symbol: abundances[symbol]) if abundances else None
    production, reserve = HHIModel().get_hhi(found)
    costs = [_price(e.symbol) for e in elements]
    price = None
    if None not in costs:
        price = sum(
            cost * found.get_wt_fraction(e) for e, cost in zip(elements, costs, strict=True) if cost is not None
        )
    return ElementFacts(
        rarest=rarest,
        abundance=None if rarest is None else abundances[rarest],
        hhi_production=None if production is None else float(production),
        hhi_reserve=None if reserve is None else float(reserve),
        price=None if price is None else float(price),
        radioactive=tuple(e.symbol for e in elements if e.is_radioactive),
        toxic=tuple(e.symbol for e in elements if e.symbol in TOXIC),
    )


@cache
def _abundance(symbol: str) -> float | None:
    """mg/kg of the earth's crust."""
    from smact import Element as SmactElement

    try:
        known = SmactElement(symbol).crustal_abundance
    except KeyError:
        return None
    return float(known) if isinstance(known, int | float) and known > 0 else None


@cache
def _price(symbol: str) -> float | None:
    """USD/kg of the pure element."""
    from pymatgen.analysis.cost import CostDBElements

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entries = CostDBElements().get_entries([Element(symbol)])
    if not entries:
        return None
    per_mole = min(entry.energy_per_atom for entry in entries)
    return float(per_mole / (0.001 * Element(symbol).atomic_mass))
