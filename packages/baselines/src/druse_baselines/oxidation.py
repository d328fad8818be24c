"""Charges of the ions of a compound, and whether any make it neutral."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache

from pymatgen.core import Composition, Element

from druse_baselines.proposer import reduced


def oxidation_states(counts: Mapping[int, int], *, known: Collection[tuple[int, int]]) -> dict[int, int] | None:
    """The most probable charges, one for each element, by pymatgen's statistics of known compounds.

    Args:
        counts: number of atoms by atomic number.
        known: ions (atomic number, charge) that may occur.

    Returns:
        {atomic number: charge}; None if no guess has whole charges (mixed valence, metals) and known ions only.
    """
    for guess in _guesses(reduced(counts)):
        charges = {z: round(charge) for z, charge in guess}
        if all(abs(charges[z] - charge) < 1e-6 and (z, charges[z]) in known for z, charge in guess):
            return charges
    return None


@cache
def _guesses(formula: tuple[tuple[int, int], ...]) -> list[list[tuple[int, float]]]:
    """Guesses in the order of their probability, as pairs of atomic number and (mean) charge."""
    composition = Composition({Element.from_Z(z): count for z, count in formula})
    return [
        [(Element(symbol).Z, charge) for symbol, charge in guess.items()] for guess in composition.oxi_state_guesses()
    ]


def can_be_neutral(elements: Sequence[int], counts: Sequence[int]) -> bool:
    """Whether one charge for each element, of those that it has in known compounds, makes the sum zero.

    A single element is neutral.

    Args:
        elements: (k,) atomic numbers.
        counts: (k,) numbers of their atoms.
    """
    if len(elements) == 1:
        return True
    sums = {0}
    for z, count in zip(elements, counts, strict=True):
        sums = {total + count * charge for total in sums for charge in charges_of(z)}
    return 0 in sums


@cache
def charges_of(z: int) -> tuple[int, ...]:
    """Charges of an element that are not rare: those of pymatgen's ICSD statistics, without these the common ones."""
    element = Element.from_Z(z)
    return element.icsd_oxidation_states or element.common_oxidation_states
