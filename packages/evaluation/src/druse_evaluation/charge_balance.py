"""Charge balance: can oxidation states explain a composition, and in which way?"""

import warnings
from functools import cache
from typing import Literal

from druse_crystal.composition import reduced_formula
from druse_crystal.crystal import Crystal

from druse_evaluation.matching import FormulaKey, formula_key
from druse_evaluation.validity import oxidation_states

type ChargeBalance = Literal[
    "element", "alloy", "balanced", "mixed valence", "metallic", "unbalanced", "unknown states", "undecided"
]

METALLIC = 0.7
"""Score of SMACT from which a composition that no oxidation states explain counts as metallic; SMACT's own default."""
MAX_STEPS = 100_000
"""Additions of charges above which the search is given up; ten elements in a cell of 20 atoms need some thousands."""


def charge_balance(crystal: Crystal, *, max_steps: int = MAX_STEPS) -> ChargeBalance:
    """How oxidation states explain the composition, if they do.

    The states and Pauling's rule (every cation less electronegative than every anion) are those of
    ``composition_valid``. The search goes over sums of charges, not over combinations of states, of which five elements
    with mixed valence have more than can ever be tried.

    Args:
        crystal: only its composition matters.
        max_steps: additions of charges after which the search is given up.

    Returns:
        ``element``: a single element.
        ``alloy``: metals only.
        ``balanced``: one state for each element makes the formula neutral.
        ``mixed valence``: it takes several states of one element, one that is known for it (SMACT's list: Fe, Mn, Co,
        Cu, ... but not Na), as in Fe3O4.
        ``metallic``: no states do, but the composition looks like that of an intermetallic compound with a metalloid,
        to which the rule does not apply: SMACT's ``metallicity_score`` is at least 0.7.
        ``unbalanced``: no states do.
        ``unknown states``: an element has no known oxidation states.
        ``undecided``: the search was given up.
    """
    return _charge_balance(formula_key(crystal), max_steps)


def charge_sentence(crystal: Crystal, found: ChargeBalance) -> str:
    """The verdict in words, for those that are no explanation."""
    formula = reduced_formula(crystal)
    if found == "unbalanced":
        return f"no oxidation states make {formula} neutral"
    if found == "unknown states":
        missing = [symbol for symbol in _symbols(formula_key(crystal)) if not oxidation_states(symbol)[0]]
        return f"no oxidation states of {', '.join(missing)} are known"
    if found == "undecided":
        return f"{formula} has too many atoms to try all oxidation states"
    return f"{formula}: {found}"


@cache
def _charge_balance(key: FormulaKey, max_steps: int) -> ChargeBalance:
    from smact import metals
    from smact.screening import MIXED_VALENCE_ELEMENTS

    symbols = _symbols(key)
    if len(symbols) == 1:
        return "element"
    if all(symbol in metals for symbol in symbols):
        return "alloy"
    states = [oxidation_states(symbol) for symbol in symbols]
    if not all(charges for charges, _ in states):
        return "unknown states"
    counts = [count for _, count in key]
    if _neutral(states, counts, mixed=[False] * len(counts)):
        return "balanced"
    mixed = [symbol in MIXED_VALENCE_ELEMENTS for symbol in symbols]
    if any(mixed):
        borders = len({electronegativity for _, electronegativity in states})
        steps = borders * sum(
            len(charges) * (count if several else 1)
            for (charges, _), count, several in zip(states, counts, mixed, strict=True)
        )
        if steps > max_steps:
            return "undecided"
        if _neutral(states, counts, mixed=mixed):
            return "mixed valence"
    return "metallic" if _metallicity(key) >= METALLIC else "unbalanced"


def _neutral(states: list[tuple[tuple[int, ...], float]], counts: list[int], *, mixed: list[bool]) -> bool:
    """Whether charges add up to zero with cations below and anions at or above some electronegativity.

    The sums that can be reached are the bits of one whole number, from the lowest possible sum on.
    """
    for border in sorted({electronegativity for _, electronegativity in states}):
        reached, lowest = 1, 0
        for (charges, electronegativity), count, several in zip(states, counts, mixed, strict=True):
            allowed = [q for q in charges if q == 0 or (q < 0) == (electronegativity >= border)]
            if not allowed:
                reached = 0
                break
            atoms, each = (count, 1) if several else (1, count)  # each atom for itself, or all alike
            for _ in range(atoms):
                longer = 0
                for q in allowed:
                    longer |= reached << each * (q - min(allowed))
                reached = longer
            lowest += count * min(allowed)
        if reached and lowest <= 0 and reached >> -lowest & 1:
            return True
    return False


def _metallicity(key: FormulaKey) -> float:
    from pymatgen.core import Composition
    from smact.metallicity import metallicity_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(metallicity_score(Composition(dict(zip(_symbols(key), [n for _, n in key], strict=True)))))


def _symbols(key: FormulaKey) -> list[str]:
    from pymatgen.core import Element

    return [Element.from_Z(z).symbol for z, _ in key]
