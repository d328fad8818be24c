"""Properties that a crystal can be asked for: what they are, and what was learnt of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from druse_diffusion import NUM_ELEMENTS
from jaxtyping import Float64
from numpy.typing import ArrayLike

ANY_NUMBER = (-np.inf, np.inf)
"""``levels`` of a property whose labels nobody knows."""
NUMBERS = ("scalar", "log_scalar")
KINDS = (*NUMBERS, "chemical_system", "space_group")
SPACE_GROUPS = 230
_FEWEST = 3  # labels without which there is no spread
_EQUAL = 1e-9  # labels whose range is so small beside them differ by rounding only
_LEVELS = 101  # quantiles that stand for the distribution of labels


@dataclass(frozen=True, kw_only=True)
class Property:
    """One property, with the statistics of the labels that an adapter learnt from.

    Attributes:
        name: of the column, such as ``dft_band_gap``.
        kind: ``scalar``; ``log_scalar``, of which the decadic logarithm is learnt; ``chemical_system``, elements that
            all occur and no others; ``space_group``, a number from 1 to 230.
        unit: such as ``eV``; empty where there is none.
        num_labels: how many crystals had a label.
        mean: of what is learnt: of the label, or of its logarithm.
        std: of the same; infinite where nothing is known of the labels.
        levels: quantiles of the labels, even from the least to the greatest.
        groups: space groups that were seen.

    Raises:
        ValueError: for a kind that does not exist, or statistics that do not belong to it.
    """

    name: str
    kind: str = "scalar"
    unit: str = ""
    num_labels: int = 0
    mean: float = 0.0
    std: float = 1.0
    levels: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.name} is of kind {self.kind!r}, it must be one of {', '.join(KINDS)}")
        if not self.std > 0:
            raise ValueError(f"the labels of {self.name} have spread {self.std}, it must be positive")

    @property
    def is_number(self) -> bool:
        """Whether a target is a number on a scale."""
        return self.kind in NUMBERS

    @property
    def has_distribution(self) -> bool:
        """Whether it is known how the labels are distributed."""
        return len(self.levels) > len(ANY_NUMBER)

    def describe(self) -> str:
        """Range, unit and number of labels, in words."""
        if self.kind == "space_group":
            what = f"{len(self.groups)} space groups ({ranges(self.groups)})"
        elif self.kind == "chemical_system":
            what = "elements with hyphens, such as Li-O"
        elif self.levels == ANY_NUMBER:
            learnt = "its decadic logarithm " if self.kind == "log_scalar" else ""
            what = f"a number {self.unit}".rstrip() + f", {learnt}learnt with mean {self.mean:.3g}, std {self.std:.3g}"
        else:
            what = f"{self.levels[0]:.4g} to {self.levels[-1]:.4g} {self.unit}".rstrip() if self.levels else "no labels"
        return f"{what}, {self.num_labels:,} labels" if self.num_labels else what

    def as_dict(self) -> dict[str, Any]:
        """Name, kind, unit, number of labels and what can be asked for, in words and as a range or space groups."""
        known = len(self.levels) > 0 and self.levels != ANY_NUMBER
        return {
            "name": self.name,
            "kind": self.kind,
            "unit": self.unit,
            "num_labels": self.num_labels,
            "description": self.describe(),
            **({"low": self.levels[0], "high": self.levels[-1]} if self.is_number and known else {}),
            **({"space_groups": list(self.groups)} if self.kind == "space_group" else {}),
        }

    def fitted(self, labels: ArrayLike) -> "Property":
        """The property with the statistics of labels, (b,) numbers of which NaN means unknown.

        Raises:
            ValueError: if fewer than three are known, one is infinite, of a wrong size for the kind, or all are equal.
        """
        values = np.asarray(labels, dtype=np.float64)
        values = values[~np.isnan(values)]
        if len(values) < _FEWEST:
            raise ValueError(
                f"{self.name} has {len(values)} labels, at least {_FEWEST} are needed (some thousands to learn from): "
                "check the name of the column, or leave the property out"
            )
        self.check(values)
        if self.kind == "space_group":
            return replace(self, num_labels=len(values), groups=tuple(sorted({int(v) for v in values})))
        if np.ptp(values) <= _EQUAL * np.abs(values).max():
            raise ValueError(
                f"all labels of {self.name} are {values[0]:g}, and there is nothing to learn from them: check the name "
                "of the column, or leave the property out"
            )
        learnt = np.log10(values) if self.kind == "log_scalar" else values
        levels = tuple(float(v) for v in np.quantile(values, np.linspace(0, 1, _LEVELS)))
        return replace(self, num_labels=len(values), mean=float(learnt.mean()), std=float(learnt.std()), levels=levels)

    def check(self, labels: ArrayLike) -> None:
        """Refuse labels that a property of this kind cannot have; NaN means unknown.

        Raises:
            ValueError: if one is infinite, no space group, or has no logarithm where that is learnt.
        """
        values = np.asarray(labels, dtype=np.float64)
        values = values[~np.isnan(values)]
        if not np.isfinite(values).all():
            raise ValueError(f"{self.name} has labels that are infinite: correct or empty these cells")
        if self.kind == "space_group" and not np.isin(values, np.arange(1, SPACE_GROUPS + 1)).all():
            raise ValueError(
                f"{self.name} has labels that are no space groups, which are numbers from 1 to {SPACE_GROUPS}: correct "
                "or empty these cells"
            )
        if self.kind == "log_scalar" and (values <= 0).any():
            raise ValueError(
                f"{self.name} has the label {values.min():g}, of which there is no logarithm: correct it, set a bound "
                "(low) below which labels count as unknown, or declare the property as scalar"
            )

    def learnable(self, values: ArrayLike) -> Float64[np.ndarray, " b"]:
        """Labels on the scale that is learnt: standardised numbers, or the numbers of space groups; NaN stays."""
        values = np.asarray(values, dtype=np.float64)
        if not self.is_number:
            return values
        return ((np.log10(values) if self.kind == "log_scalar" else values) - self.mean) / self.std

    def original(self, values: ArrayLike) -> Float64[np.ndarray, " b"]:
        """Labels from their scale that is learnt: the inverse of ``learnable``."""
        values = np.asarray(values, dtype=np.float64)
        if not self.is_number:
            return values
        scaled = self.mean + self.std * values
        return 10**scaled if self.kind == "log_scalar" else scaled


def ranges(numbers: Sequence[int]) -> str:
    """Rising whole numbers in words: those that follow each other as ``1-3``, with commas between."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def multi_hot(systems: Sequence[Sequence[int]]) -> Float64[np.ndarray, "b k"]:
    """Chemical systems, each as atomic numbers, as rows of zeros and ones."""
    rows = np.zeros((len(systems), NUM_ELEMENTS))
    for row, system in zip(rows, systems, strict=True):
        row[[z - 1 for z in system]] = 1.0
    return rows
