"""Which structures of a source are wanted: by a column, by their elements, by their ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from druse_crystal.io import ReadResult
from pymatgen.core import Composition, Element


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is wanted; without any wish, everything.

    Attributes:
        where: a column (or another entry beside the structures) that must be true.
        without: atomic numbers that no structure may hold.
        leave_out: ids of structures that are not wanted.
    """

    where: str | None = None
    without: frozenset[int] = frozenset()
    leave_out: frozenset[str] = frozenset()

    def objection(self, result: ReadResult) -> str:
        """The option that speaks against a structure; empty if none does."""
        known = result.crystal is not None or self.where in result.info
        if self.where is not None and known and not _is_true(result.info.get(self.where)):
            return f"--where {self.where}"
        if self.leave_out and str(result.info.get("id", result.source)) in self.leave_out:
            return "--leave-out"
        if result.crystal is not None and not self.without.isdisjoint(result.crystal.atomic_numbers.tolist()):
            return "--without-elements"
        return ""

    def __str__(self) -> str:
        wishes = []
        if self.where is not None:
            wishes.append(f"{self.where} is true")
        if self.without:
            wishes.append(f"none of {', '.join(Element.from_Z(z).symbol for z in sorted(self.without))}")
        if self.leave_out:
            wishes.append(f"not one of {len(self.leave_out)} ids")
        return "; ".join(wishes)


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
