"""What is asked of properties: a value, a range, an inequality, a chemical system, a space group."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from druse_diffusion import NUM_ELEMENTS, Conditions
from jaxtyping import Float64

from druse_guidance.allowed_elements import parse_elements
from druse_guidance.properties import Property, multi_hot, ranges

_RARE = 0.01  # share of the labels beyond which a target is at the edge of what was learnt
_FAR, _TOO_FAR = 3.0, 10.0  # standard deviations from the mean, where nothing else is known of the labels


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked of one property.

    Attributes:
        property: with the statistics of its labels.
        low: least value, minus infinity if there is none; of a space group its number.
        high: greatest value, infinity if there is none.
        elements: of a chemical system, atomic numbers.
        text: as it was written.
    """

    property: Property
    low: float = 0.0
    high: float = 0.0
    elements: tuple[int, ...] = ()
    text: str = ""

    @property
    def warning(self) -> str:
        """A sentence if few labels are where the target is; empty otherwise."""
        if not self.property.is_number:
            return ""
        if not self.property.has_distribution:
            far = _distance(self.property, self.low, self.high)
            if far <= _FAR:
                return ""
            return (
                f"{self.text} is {far:.1f} standard deviations from the mean of the labels of {self.property.name}, "
                "where hardly any label is"
            )
        below, above = _shares(self.property, self.low, self.high)
        if above - below >= _RARE or (self.low == self.high and below <= 1 - _RARE and above >= _RARE):
            return ""
        levels = self.property.levels
        return (
            f"{self.text} lies where hardly any label is: 98 % of the {self.property.num_labels:,} labels of "
            f"{self.property.name} are between {levels[1]:.4g} and {levels[-2]:.4g}"
        )

    def draw(self, uniform: float) -> Float64[np.ndarray, " w"]:
        """What one crystal is asked for: of a range a value as often as it occurs among the labels, if that is known.

        Args:
            uniform: even in (0, 1); decides.

        Raises:
            ValueError: for an open range of a property of which it is not known how its labels are distributed.
        """
        if self.property.kind == "chemical_system":
            return multi_hot([self.elements])[0]
        if self.low == self.high:
            return np.array([self.low])
        if not self.property.has_distribution:
            if not np.isfinite([self.low, self.high]).all():
                name = self.property.name
                raise ValueError(
                    f"{self.text!r}: how the labels of {name} are distributed is not known of this model, so that no "
                    f"values can be drawn from an open range: write a value or a range, such as {name}=1..2"
                )
            return np.array([self.low + uniform * (self.high - self.low)])
        below, above = _shares(self.property, self.low, self.high)
        levels = np.array(self.property.levels)
        value = np.interp(below + uniform * (above - below), np.linspace(0, 1, len(levels)), levels)
        return np.clip([value], max(self.low, levels[0]), min(self.high, levels[-1]))

    def met(self, value: float | Sequence[int], *, tolerance: float = 0.0) -> bool:
        """Whether a crystal with this value, or these elements, is what was asked for.

        Args:
            value: of the property, or atomic numbers.
            tolerance: how far a value may lie from a single one that was asked for.
        """
        if isinstance(value, Sequence):
            return set(value) == set(self.elements)
        return self.low - tolerance <= value <= self.high + tolerance


def parse_target(text: str, properties: Mapping[str, Property]) -> Target:
    """Read one target.

    Such as ``dft_band_gap=1.5``, ``dft_band_gap=1..2``, ``bulk_modulus>=300``, ``energy_above_hull<=0.05``,
    ``space_group=225`` or ``chemical_system=Li-O``.

    Args:
        text: one target.
        properties: of the model, by name.

    Raises:
        ValueError: if it cannot be read, the model does not know the property, or it was trained on nothing like it;
            says what it knows.
    """
    found = re.fullmatch(r"\s*(\w+)\s*(=|>=|<=)\s*(\S.*?)\s*", text)
    if not found or found[1].isdecimal() or re.search("[<>=]", found[3]):
        raise ValueError(f"{text!r} is no target: write name=value, name=low..high, name>=low or name<=high")
    name, sign, value = found.groups()
    if name not in properties:
        known = "; ".join(f"{p.name} ({p.describe()})" for p in properties.values())
        what = f": it knows {known}" if known else ", nor any other: add an adapter, or take a model that learnt it"
        raise ValueError(f"the model knows no property {name!r}{what}")
    p = properties[name]
    if p.is_number:
        return _number(p, sign, value, text)
    if sign != "=":
        raise ValueError(f"{text!r}: {name} is no number on a scale, ask for {name}={value}")
    if p.kind == "chemical_system":
        elements = parse_elements(value)
        if elements[-1] > NUM_ELEMENTS:
            raise ValueError(f"{text!r}: the model has no class for {chemical_symbols[elements[-1]]}: leave it out")
        return Target(property=p, elements=elements, text=text)
    if not value.isdecimal() or int(value) not in p.groups:
        raise ValueError(f"{text!r}: the model learnt of the space groups {ranges(p.groups)}: ask for one of these")
    return Target(property=p, low=float(value), high=float(value), text=text)


def _number(p: Property, sign: str, value: str, text: str) -> Target:
    words = value.split("..") if sign == "=" else [value]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not np.isfinite(numbers).all():
        unit = f" in {p.unit}, without the unit" if p.unit else ""
        usual = 10**p.mean if p.kind == "log_scalar" else p.mean
        example = p.levels[50] if p.has_distribution else usual
        raise ValueError(f"{text!r}: {p.name} is a number{unit}, such as {p.name}={example:.3g}")
    if p.kind == "log_scalar" and min(numbers) <= 0:
        raise ValueError(f"{text!r}: {p.name} is above zero, its logarithm was learnt: ask for a positive number")
    least, greatest = p.levels[0], p.levels[-1]
    low = numbers[0] if sign != "<=" else -np.inf
    high = numbers[-1] if sign != ">=" else np.inf
    if low > high:
        raise ValueError(f"{text!r}: a range has its lower end first, ask for {p.name}={words[-1]}..{words[0]}")
    if high < least or low > greatest or (sign == "=" and not (least <= low and high <= greatest)):
        between = f"{least:.4g} and {greatest:.4g} {p.unit}".rstrip()
        raise ValueError(
            f"{text!r}: the {p.num_labels:,} labels of {p.name} that the model learnt from lie between {between}: ask "
            "for something in between"
        )
    if not p.has_distribution and (far := _distance(p, low, high)) > _TOO_FAR:
        mean, above = p.original([0.0, 1.0])
        raise ValueError(
            f"{text!r} is {far:.0f} standard deviations from the mean of the labels that the model learnt from "
            f"({mean:.4g} {p.unit}, one more is {above:.4g}): ask for something nearer"
        )
    return Target(property=p, low=low, high=high, text=text)


def _distance(p: Property, low: float, high: float) -> float:
    """Standard deviations from the mean of what is learnt to the end of a range that lies farther from it."""
    ends = [value for value in (low, high) if np.isfinite(value)]
    return float(np.abs(p.learnable(ends)).max())


def _shares(p: Property, low: float, high: float) -> tuple[float, float]:
    """Share of the labels below ``low``, and at or below ``high``; of labels that repeat, all lie inside."""
    levels = np.array(p.levels)
    places = np.linspace(0, 1, len(levels))

    def share(value: float, at: int) -> float:
        inside = 0 <= at < len(levels) and levels[at] == value
        return float(places[at]) if inside else float(np.interp(value, levels, places))

    return share(low, int(np.searchsorted(levels, low, "left"))), share(
        high, int(np.searchsorted(levels, high, "right")) - 1
    )


def conditions_of(targets: Sequence[Target], drawn: Sequence[Sequence[np.ndarray]]) -> Conditions:
    """The conditions of a batch, for ``AdaptedNetwork``.

    Args:
        targets: with different properties.
        drawn: for each crystal what was drawn of each target.
    """
    values = {}
    for i, target in enumerate(targets):
        rows = np.stack([crystal[i] for crystal in drawn])
        learnable = rows if target.property.kind == "chemical_system" else target.property.learnable(rows[:, 0])
        values[target.property.name] = torch.tensor(learnable, dtype=torch.float32)
    return Conditions(values=values, given={name: torch.ones(len(drawn), dtype=torch.bool) for name in values})
