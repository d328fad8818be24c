"""Which structures of a source are wanted: by a column, by their elements, by their ids."""

import operator
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from druse_crystal import alex_mp_20
from druse_crystal.io import ReadResult
from pymatgen.core import Composition, Element

_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq}
_COMPARED = re.compile(r"(?P<column>[^<>=]+?)\s*(?P<sign>[<>]=?|=)\s*(?P<bound>[^<>=]+)")


@dataclass(frozen=True)
class Condition:
    """What a column (or another entry beside the structures) must say.

    Attributes:
        column: its name.
        sign: how it compares with the bound: ``<``, ``<=``, ``>``, ``>=`` or ``=``; empty: the column must be true.
        bound: in the unit of the column.
        option: that asks for it.
        synonym: another name of the column, for data without the first; empty: there is none.
    """

    column: str
    sign: str = ""
    bound: float = 0.0
    option: str = "--where"
    synonym: str = ""

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition of a text such as ``near_hull`` or ``energy_above_hull<0.1``.

        Raises:
            ValueError: if it is neither.
        """
        if not re.search("[<>=]", text):
            return cls(text)
        match = _COMPARED.fullmatch(text.strip())
        try:
            if match is None:
                raise ValueError
            return cls(match["column"].strip(), match["sign"], float(match["bound"]))
        except ValueError:
            raise ValueError(
                f"{text!r} is no condition: name a column that is true, or compare it with a number, such as "
                "energy_above_hull<0.1"
            ) from None

    def holds(self, value: Any) -> bool:
        """Whether an entry fulfils it; one that is missing or no number does not."""
        if not self.sign:
            return _is_true(value)
        try:
            return _COMPARISONS[self.sign](float(value), self.bound)
        except (TypeError, ValueError):
            return False

    @property
    def text(self) -> str:
        """What ``parse`` reads."""
        return f"{self.column}{self.sign}{self.bound:g}" if self.sign else self.column

    def __str__(self) -> str:
        return self.text if self.sign else f"{self.column} is true"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is wanted; without any wish, everything.

    Attributes:
        where: conditions that must all hold.
        without: atomic numbers that no structure may hold.
        leave_out: ids of structures that are not wanted.
    """

    where: tuple[Condition, ...] = ()
    without: frozenset[int] = frozenset()
    leave_out: frozenset[str] = frozenset()

    def objection(self, result: ReadResult) -> str:
        """The option that speaks against a structure; empty if none does."""
        for condition in self.where:
            names = [name for name in (condition.column, condition.synonym) if name in result.info]
            known = result.crystal is not None or names
            if known and not condition.holds(result.info[names[0]] if names else None):
                silent = "" if names else f" (there is no {condition.column})"
                return f"{condition.option} {condition.text}{silent}"
        if self.leave_out and str(result.info.get("id", result.source)) in self.leave_out:
            return "--leave-out"
        if result.crystal is not None and not self.without.isdisjoint(result.crystal.atomic_numbers.tolist()):
            return "--without-elements"
        return ""

    def __str__(self) -> str:
        wishes = [str(condition) for condition in self.where]
        if self.without:
            wishes.append(f"none of {', '.join(Element.from_Z(z).symbol for z in sorted(self.without))}")
        if self.leave_out:
            wishes.append(f"not one of {len(self.leave_out)} ids")
        return "; ".join(wishes)


def within_alex_mp_20(selection: Selection) -> Selection:
    """The selection, and nothing that the dataset of the published models leaves out but for large cells.

    The column ``energy_above_hull``, or ``e_above_hull`` as in MP-20 (eV/atom), must be there; the structures stay
    below ``druse_crystal.alex_mp_20.MAX_ENERGY_ABOVE_HULL``.
    """
    near = Condition(
        "energy_above_hull",
        "<",
        alex_mp_20.MAX_ENERGY_ABOVE_HULL,
        option="--limits alex-mp-20,",
        synonym="e_above_hull",
    )
    absent = frozenset(element.Z for element in Element) - frozenset(alex_mp_20.ELEMENTS)
    return replace(selection, where=(*selection.where, near), without=selection.without | absent)


def _is_true(value: Any) -> bool:
    return value.strip().lower() in ("true", "yes", "1") if isinstance(value, str) else value == 1


def parse_words(text: str) -> tuple[str, ...]:
    """The words of a text with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def parse_elements(text: str) -> frozenset[int]:
    """Atomic numbers of symbols such as ``He,Ne``.

    Raises:
        ValueError: names the word that is no symbol.
    """
    symbols = parse_words(text)
    for symbol in symbols:
        if not Element.is_valid_symbol(symbol):
            raise ValueError(f"{symbol!r} is no element: write symbols with commas between them, such as He,Ne")
    return frozenset(Element(symbol).Z for symbol in symbols)


def read_words(path: Path) -> frozenset[str]:
    """The words of a text file, one a line.

    Raises:
        ValueError: if the file cannot be read.
    """
    try:
        return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} ({error}): give a text file with one entry a line") from error


def read_formulas(path: Path) -> frozenset[str]:
    """The reduced formulas of a text file with one formula a line.

    Raises:
        ValueError: if the file cannot be read, or a line is no formula.
    """
    return frozenset(_reduced(line, path) for line in read_words(path))


def _reduced(text: str, path: Path) -> str:
    try:
        return Composition(text, strict=True).reduced_formula
    except ValueError as error:
        raise ValueError(f"{path}: {text!r} is no formula such as Li2O: correct or remove the line") from error
