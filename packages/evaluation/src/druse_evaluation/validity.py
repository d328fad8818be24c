"""Validity: could this arrangement of atoms, and this composition, be a crystal at all?"""

import math
from functools import cache

from druse_crystal.crystal import Crystal
from druse_crystal.neighbors import min_distance

from druse_evaluation.matching import FormulaKey, formula_key

MIN_DISTANCE = 0.5
"""Å; shortest distance between two atoms (or an atom and its own image) that counts as valid."""
MIN_VOLUME = 0.1
"""Å³; smallest valid cell."""


def structure_valid(crystal: Crystal) -> bool:
    """No two atoms closer than 0.5 Å (own images included) and a cell of at least 0.1 Å³.

    The published evaluation looks only at pairs of different atoms, so that a cell axis of 0.45 Å passes there.
    """
    return crystal.volume >= MIN_VOLUME and min_distance(crystal) >= MIN_DISTANCE


def composition_valid(crystal: Crystal) -> bool:
    """Whether oxidation states can explain the composition, by the rules of SMACT as MatterGen uses them.

    True for a single element and for an all-metal composition; otherwise there must be one oxidation state for each
    element such that the charges add up to zero and every cation is less electronegative than every anion (Pauling's
    rule). The states are SMACT's (ICSD 2024). An element without known states (He, Ne, Ar, Pm, At, Rn, Fr, Ra and those
    from Es on) makes the composition invalid. So would one with states and no electronegativity, as in SMACT's own test
    of Pauling's rule, but in SMACT 4 there is none.
    """
    return _formula_valid(formula_key(crystal))


@cache
def _formula_valid(key: FormulaKey) -> bool:
    from pymatgen.core import Element
    from smact import metals

    symbols = [Element.from_Z(z).symbol for z, _ in key]
    if len(symbols) == 1 or all(symbol in metals for symbol in symbols):
        return True
    elements = [oxidation_states(symbol) for symbol in symbols]
    if not all(states for states, _ in elements):
        return False
    # Pauling's rule for a whole crystal: some electronegativity separates the cations (below) from the anions (at or
    # above it). For each such border the reachable total charges are a small set, however many states there are.
    for border in sorted({electronegativity for _, electronegativity in elements}):
        charges = {0}
        for (states, electronegativity), (_, count) in zip(elements, key, strict=True):
            allowed = [q for q in states if q == 0 or (q < 0) == (electronegativity >= border)]
            charges = {total + count * q for total in charges for q in allowed}
        if 0 in charges:
            return True
    return False


@cache
def oxidation_states(symbol: str) -> tuple[tuple[int, ...], float]:
    """Oxidation states and electronegativity; no states for an element of which SMACT does not know both."""
    from smact import Element

    try:
        element = Element(symbol)
    except KeyError:
        return (), math.nan
    electronegativity = element.pauling_eneg
    if electronegativity is None:
        return (), math.nan
    return tuple(element.oxidation_states or ()), float(electronegativity)
