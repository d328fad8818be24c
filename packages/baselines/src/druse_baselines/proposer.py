"""What proposes crystals, and what it may be asked for."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Protocol, runtime_checkable

from druse_crystal import Crystal
from pymatgen.core import Composition, Element


@runtime_checkable
class Proposer(Protocol):
    """Anything that makes crystals: a classical method, or a generative model behind the same call."""

    name: str

    def __call__(self, n: int, *, target: str | None = None, seed: int = 0) -> Iterator[Crystal]:
        """Propose crystals one by one.

        Args:
            n: how many. A method that knows only fewer different ones stops there.
            target: a chemical system ("Li-O": exactly these elements) or a formula ("Li2O"); None leaves it open.
            seed: same seed, same crystals; a larger ``n`` only adds crystals at the end.

        Raises:
            ValueError: if the target cannot be read or reached.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Which compositions are wanted.

    Attributes:
        elements: atomic numbers, all of which must be present and no others.
        formula: reduced formula, atomic number to count, or None if every stoichiometry will do.
    """

    elements: frozenset[int]
    formula: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read "Li-O" as a chemical system and "Li2O" as a formula.

        Raises:
            ValueError: if the text is neither.
        """
        try:
            if "-" in text:
                return cls(elements=frozenset(Element(symbol.strip()).Z for symbol in text.split("-")))
            amounts = {Element(symbol).Z: amount for symbol, amount in Composition(text).get_el_amt_dict().items()}
        except ValueError as error:
            raise ValueError(
                f"target {text!r} is neither a chemical system like Li-O nor a formula like Li2O"
            ) from error
        counts = {z: round(amount) for z, amount in amounts.items()}
        if not counts or any(abs(counts[z] - amounts[z]) > 1e-8 or counts[z] < 1 for z in counts):
            raise ValueError(f"target {text!r} needs whole numbers of atoms")
        return cls(elements=frozenset(counts), formula=reduced(counts))

    def matches(self, counts: Mapping[int, int]) -> bool:
        """Whether a composition (atomic number to number of atoms) is wanted."""
        if frozenset(counts) != self.elements:
            return False
        return self.formula is None or reduced(counts) == self.formula


def element_counts(crystal: Crystal) -> Counter[int]:
    """Number of atoms of each element in the cell, by atomic number."""
    return Counter(crystal.atomic_numbers.tolist())


def reduced(counts: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """A composition divided by its greatest common divisor, by rising atomic number."""
    divisor = reduce(gcd, counts.values())
    return tuple(sorted((z, count // divisor) for z, count in counts.items()))
