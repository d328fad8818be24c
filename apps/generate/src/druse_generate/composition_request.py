"""Which elements a crystal shall have, and how many atoms of each."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from druse_guidance import ElementCounts, parse_elements

_SYSTEM, _FORMULA, _ONLY = "chemical_system", "formula", "elements"


@dataclass(frozen=True, kw_only=True)
class CompositionRequest:
    """What was asked for; every crystal complies, whatever the network says. Nothing: whatever comes.

    Attributes:
        elements: only these may occur, such as ``Li-Fe-O``.
        chemical_system: all of these occur and no others.
        formula: whole formula units of this, such as ``Li2FeO4``, as many as the model's cells can hold.
        include: all of these occur, and others may.
        exclude: none of these occurs.
        counts: numbers of atoms in the cell, such as ``Fe:2,O:4-8,Li:1-`` (the last: one or more).

    Raises:
        ValueError: for a word that makes no sense, or wishes that exclude each other.
    """

    elements: str | None = None
    chemical_system: str | None = None
    formula: str | None = None
    include: str | None = None
    exclude: str | None = None
    counts: str | None = None

    def __post_init__(self):
        given = [(name, text) for name in (_ONLY, _SYSTEM, _FORMULA) if (text := getattr(self, name)) is not None]
        if len(given) > 1:
            (first, a), (second, b) = given[:2]
            raise ValueError(
                f"{first.replace('_', ' ')} {a} and {second.replace('_', ' ')} {b} were asked for at once: give "
                "elements if only these may occur, a chemical system if all of them must, or a formula if their "
                "numbers are fixed"
            )
        only = self._only
        for z in (*self.required, *(z for z, most in self._most.items() if most)):
            if z in self._excluded:
                raise ValueError(f"{chemical_symbols[z]} was asked for and excluded at once: one of the two has to go")
            if only is not None and z not in only:
                raise ValueError(f"{chemical_symbols[z]} was asked for, but {given[0][1]} does not have it")
        ElementCounts(least=self._least, most=self._most)
        if only is not None and not only - self._excluded:
            raise ValueError(f"no element is left: all of {given[0][1]} are excluded")
        if self._unit:
            for z, (low, high) in self._counted.items():
                if z not in self._unit:  # none was asked for, and none is there
                    continue
                if not any(low <= times * self._unit[z] <= high for times in range(1, high + 1)):
                    raise ValueError(
                        f"{chemical_symbols[z]} with {low} to {high} atoms and formula {self.formula} were asked for "
                        f"at once: a formula unit has {self._unit[z]}"
                    )

    @cached_property
    def _unit(self) -> dict[int, int]:
        return {} if self.formula is None else parse_formula(self.formula)

    @cached_property
    def _counted(self) -> dict[int, tuple[int, int]]:
        return {} if self.counts is None else parse_counts(self.counts)

    @cached_property
    def _excluded(self) -> frozenset[int]:
        return frozenset(() if self.exclude is None else parse_elements(self.exclude))

    @cached_property
    def _only(self) -> frozenset[int] | None:
        if self._unit:
            return frozenset(self._unit)
        text = self.elements if self.elements is not None else self.chemical_system
        return None if text is None else frozenset(parse_elements(text))

    @cached_property
    def _least(self) -> dict[int, int]:
        least = {z: low for z, (low, _) in self._counted.items() if low}
        return {z: least.get(z, 1) for z in (*least, *self.required)}

    @cached_property
    def _most(self) -> dict[int, int]:
        return {z: high for z, (_, high) in self._counted.items()}

    @cached_property
    def required(self) -> tuple[int, ...]:
        """Atomic numbers of the elements that must occur in every crystal, rising."""
        named = [*self._unit, *(z for z, (low, _) in self._counted.items() if low)]
        for text in (self.chemical_system, self.include):
            named += () if text is None else parse_elements(text)
        return tuple(sorted(set(named)))

    @property
    def restricts(self) -> bool:
        """Whether anything was asked for."""
        return self != CompositionRequest()

    def allowed(self, known: Iterable[int]) -> tuple[int, ...]:
        """Atomic numbers of the elements that may occur, of those known to the model where nothing was said.

        What was asked for by name is there even if the model does not know it, so that somebody refuses it.
        """
        named = {*self.required, *(z for z, most in self._most.items() if most > 0)}
        some = frozenset(known) | named if self._only is None else self._only
        return tuple(sorted(some - self._excluded))

    def bounds(self, num_atoms: int) -> ElementCounts | None:
        """Bounds on the numbers of atoms of a crystal of this size; None if there are none."""
        if self._unit:
            units = num_atoms // sum(self._unit.values())
            exact = {z: units * count for z, count in self._unit.items()}
            return ElementCounts(
                least={z: max(n, self._least.get(z, 0)) for z, n in exact.items()},
                most={z: min(n, self._most.get(z, n)) for z, n in exact.items()},
            )
        if not self._least and not self._most:
            return None
        if self._only is None:
            return ElementCounts(least=self._least, most=self._most, others=True)
        rest = dict.fromkeys(self._only - self._excluded, num_atoms)
        return ElementCounts(least=self._least, most=rest | self._most)

    def sizes(self, known: Sequence[int]) -> list[int]:
        """Of the given numbers of atoms those with which a crystal can comply.

        Raises:
            ValueError: if there is none; says what is possible.
        """
        possible = [n for n in known if self._possible(n)]
        if possible:
            return possible
        low, high = min(known), max(known)
        cells = f"cells of {low} atoms" if low == high else f"cells of {low} to {high} atoms"
        if self._unit:
            unit = sum(self._unit.values())
            raise ValueError(
                f"{cells} cannot hold {self.formula}: they have to be of {unit}, {2 * unit}, {3 * unit}, ... atoms"
                + (" with these counts" if self._counted else "")
            )
        needed = sum(self._least.values())
        if needed > high:
            raise ValueError(
                f"what was asked for has at least {needed} atoms, and {cells} are to be drawn: allow more atoms or "
                "ask for fewer elements"
            )
        most = sum(self._most.get(z, high) for z in self._only or ())
        raise ValueError(f"what was asked for has at most {most} atoms, and {cells} are to be drawn: allow fewer atoms")

    def _possible(self, num_atoms: int) -> bool:
        if self._unit and num_atoms % sum(self._unit.values()):
            return False
        try:
            bounds = self.bounds(num_atoms)
        except ValueError:  # counts that this many formula units do not have
            return False
        return bounds is None or bounds.possible([1] * num_atoms)


def parse_formula(text: str) -> dict[int, int]:
    """Atoms of each element in one formula unit, by atomic number; ``Li4Fe2O8`` is read as two of ``Li2FeO4``.

    Raises:
        ValueError: if it is no formula with whole numbers, or has charges, isotopes or elements without atoms.
    """
    plain = unicodedata.normalize("NFKC", text).strip()  # no subscripts
    wrong = next((hint for pattern, hint in _NO_FORMULA.items() if re.search(pattern, plain)), "")
    try:
        counts = {} if wrong else Formula(plain, strict=True).reduce()[0].count()
    except (ValueError, ZeroDivisionError):
        counts = {}
    if not counts or min(counts.values()) < 1 or not all(atomic_numbers.get(symbol) for symbol in counts):
        raise ValueError(f"{text!r} is no formula with whole numbers, such as Li2FeO4{wrong}")
    return {atomic_numbers[symbol]: count for symbol, count in counts.items()}


def parse_counts(text: str) -> dict[int, tuple[int, int]]:
    """``Fe:2,O:4-8,Li:1-`` as fewest and most atoms by atomic number.

    Raises:
        ValueError: names the part that makes no sense.
    """
    counts: dict[int, tuple[int, int]] = {}
    for part in text.split(","):
        symbol, colon, numbers = (word.strip() for word in part.partition(":"))
        first, dash, last = (word.strip() for word in numbers.partition("-"))
        low = int(first) if first.isdecimal() else -1
        high = int(last) if last.isdecimal() else _NO_LIMIT if dash and not last else low if not dash else -1
        if not colon or low < 0 or high < low or not atomic_numbers.get(symbol):
            raise ValueError(
                f"{part.strip()!r} is no count: write Fe:2 for two atoms, O:4-8 for a range, Li:1- for one or more"
            )
        if atomic_numbers[symbol] in counts:
            raise ValueError(f"{symbol} stands in {text!r} more than once: write each element once")
        counts[atomic_numbers[symbol]] = (low, high)
    return counts


_NO_FORMULA = {
    r"[+-]": ": leave out charges and hyphens",
    r"(?<![\d.])0+(?![\d.])": ": leave out elements of which there is no atom",
    r"[DT](?![a-z])": ": write D and T as H",
    r"[·*•]": ": write one formula, with the water in it",
}
_NO_LIMIT = 10**6  # atoms; no cell has as many
