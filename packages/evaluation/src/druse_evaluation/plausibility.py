"""Plausibility: what a chemist would ask about one crystal, answered, with the tests that it fails in words."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from druse_crystal.crystal import Crystal

from druse_evaluation.bonds import Bonds, OverlapError, dimensionality, find_bonds
from druse_evaluation.charge_balance import ChargeBalance, charge_balance, charge_sentence
from druse_evaluation.elements import ElementFacts, element_facts
from druse_evaluation.known_bonds import KnownBonds, load_known_bonds

TESTS = ("charge balance", "bond lengths", "coordination")
"""What a crystal can fail."""


@dataclass(frozen=True, kw_only=True)
class Plausibility:
    """Chemical facts about one crystal, and which tests it fails. It is information: nothing is filtered by it.

    Which known prototype is close, and how close, is a question to the reference: ``druse_evaluation.prototypes``, and
    the columns ``prototype_id`` and ``prototype_rms`` of an assessment.

    Attributes:
        charge_balance: how oxidation states explain the composition, see ``druse_evaluation.charge_balance``; None if
            that could not be tested.
        coordination: numbers of bonds by element, ``Cl 6, Na 6`` or ``Fe 4 to 6``; None if they could not be counted.
        dimensionality: 3 for a framework, 2 for layers, 1 for chains, 0 for molecules; None if it is not known.
        elements: abundance, supply, price, radioactivity and toxicity of the elements; None if they could not be
            looked up.
        failed: tests that the crystal fails, each as ``test: what is wrong``.
        untested: what could not be tested, each as ``test: why``.
    """

    charge_balance: ChargeBalance | None
    coordination: str | None
    dimensionality: int | None
    elements: ElementFacts | None
    failed: tuple[str, ...]
    untested: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """What speaks against the elements, each as ``flag: details``; a crystal with flags fails no test by them."""
        return () if self.elements is None else self.elements.flags


def plausibility(crystal: Crystal, *, known: KnownBonds | None = None) -> Plausibility:
    """Ask what a reviewer would ask.

    Nothing raises: what cannot be tested is listed under ``untested`` with the reason. For cells of up to 20 atoms it
    takes some hundredths of a second; larger ones are bounded by ``MAX_ATOMS`` and ``MAX_BONDS``.

    Args:
        crystal: of any origin.
        known: ranges of bond lengths and coordination numbers; those of the embedded structures by default.
    """
    block = _Block()
    balance = block.ask("charge balance", lambda: charge_balance(crystal))
    if balance in ("unbalanced", "unknown states"):
        block.failed.append(f"charge balance: {charge_sentence(crystal, balance)}")
    elif balance == "undecided":
        block.untested.append(f"charge balance: {charge_sentence(crystal, balance)}")
    bonds = block.bonds(crystal)
    coordination = directions = None
    if bonds is None:
        block.untested += [f"{what}: could not be tested without bonds" for what in ("coordination", "dimensionality")]
    else:
        for test, strange in (
            ("bond lengths", KnownBonds.strange_lengths),
            ("coordination", KnownBonds.strange_coordination),
        ):
            found = block.ask(test, lambda strange=strange: strange(known or load_known_bonds(), bonds))
            if found:
                block.failed.append(f"{test}: {'; '.join(found)}")
        coordination = block.ask("coordination", lambda: _coordination_in_words(bonds))
        directions = block.ask("dimensionality", lambda: dimensionality(bonds))
    return Plausibility(
        charge_balance=balance,
        coordination=coordination,
        dimensionality=directions,
        elements=block.ask("elements", lambda: element_facts(crystal)),
        failed=tuple(block.failed),
        untested=tuple(block.untested),
    )


class _Block:
    """Collects what failed and what could not be tested."""

    def __init__(self):
        self.failed: list[str] = []
        self.untested: list[str] = []

    def ask[T](self, test: str, question: Callable[[], T]) -> T | None:
        """The answer, or None and a line under ``untested``: one odd crystal must not cost the others their facts."""
        try:
            return question()
        except Exception as error:
            self.untested.append(f"{test}: could not be tested: {str(error) or type(error).__name__}")
            return None

    def bonds(self, crystal: Crystal) -> Bonds | None:
        """The bonds; overlapping atoms are a failed test, not one that could not be made."""
        try:
            return find_bonds(crystal)
        except OverlapError as error:
            self.failed.append(f"bond lengths: {error}")
        except Exception as error:
            self.untested.append(f"bond lengths: could not be tested: {str(error) or type(error).__name__}")
        return None


def _coordination_in_words(bonds: Bonds) -> str:
    numbers, counts = bonds.crystal.atomic_numbers, bonds.coordination()
    words = []
    for z in np.unique(numbers).tolist():
        low, high = counts[numbers == z].min(), counts[numbers == z].max()
        words.append(f"{chemical_symbols[z]} {low}" if low == high else f"{chemical_symbols[z]} {low} to {high}")
    return ", ".join(sorted(words))
