"""Properties that a model can be asked for, and how each is obtained of a relaxed crystal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from druse_crystal import Crystal
from druse_crystal.composition import chemical_system
from druse_crystal.console import Display
from druse_crystal.derived import DERIVED
from druse_crystal.journal import Journal, crystal_key
from druse_energetics.predictors import Predict, load_predictor
from druse_evaluation.table import Assessment
from druse_guidance import Property, Target, parse_elements, parse_target
from druse_guidance.properties import ANY_NUMBER, SPACE_GROUPS
from druse_guidance.units import PURE, USUAL, other_unit
from jaxtyping import Bool

CHUNK = 16
"""Crystals whose properties are predicted together, and kept."""
ALL_GROUPS = tuple(range(1, SPACE_GROUPS + 1))

type Value = float | str | None


@dataclass(frozen=True, kw_only=True)
class Obtainable:
    """A property that can be asked for and obtained.

    Attributes:
        property: name, kind and unit. It holds no statistics: what a model has learnt is checked before it draws.
        tolerance: how far a value may lie from a single number that was asked for and still be a hit.
        digits: decimals that are kept.
        labels: columns of datasets that hold it; none where it follows from the crystal itself.
    """

    property: Property
    tolerance: float = 0.0
    digits: int = 0
    labels: tuple[str, ...] = ()


def _number(name: str, unit: str, *, tolerance: float, digits: int, labels: tuple[str, ...] = ()) -> Obtainable:
    asked = Property(name=name, unit=unit, std=math.inf, levels=ANY_NUMBER)
    return Obtainable(property=asked, tolerance=tolerance, digits=digits, labels=labels)


OBTAINABLE: Mapping[str, Obtainable] = {
    found.property.name: found
    for found in (
        Obtainable(property=Property(name="chemical_system", kind="chemical_system")),
        Obtainable(property=Property(name="space_group", kind="space_group", groups=ALL_GROUPS)),
        _number("energy_above_hull", "eV/atom", tolerance=0.05, digits=4, labels=("energy_above_hull",)),
        _number("ml_bulk_modulus", "GPa", tolerance=25, digits=1, labels=("ml_bulk_modulus", "dft_bulk_modulus")),
        _number("dft_band_gap", "eV", tolerance=0.5, digits=3, labels=("dft_band_gap",)),
        _number("dft_mag_density", "µB/Å³", tolerance=0.01, digits=5, labels=("dft_mag_density",)),
        _number("hhi_score", "", tolerance=250, digits=0),
        _number("density", "g/cm³", tolerance=0.5, digits=3),
        _number("num_elements", "", tolerance=0.25, digits=0),
    )
}
"""By name. The two that are no numbers are met exactly."""


def read_target(text: str) -> Target:
    """A target of any of these properties, whatever a model has learnt.

    Raises:
        ValueError: if it cannot be read, or no crystal has such a value.
    """
    target = parse_target(text, {name: found.property for name, found in OBTAINABLE.items()})
    if target.property.is_number:
        low, high = PURE.get(target.property.name) or USUAL[target.property.unit]
        if target.high < low or target.low > high:
            unit = f" {target.property.unit}" if target.property.unit else ""
            raise ValueError(
                f"{text}: no crystal has that, values lie between {low:g} and {high:g}{unit}: ask for one of them"
            )
    return target


def names_of(targets: Sequence[str]) -> tuple[str, ...]:
    """Properties that targets are about, in their order."""
    return tuple(read_target(text).property.name for text in targets)


def told_by(asked: Property) -> str | None:
    """Which of ``OBTAINABLE`` tells a property that a model has learnt: by its kind, or by its name.

    None where nothing does, or tells it in another unit than that of the labels.
    """
    if not asked.is_number:
        return asked.kind
    found = OBTAINABLE.get(asked.name)
    if found is None or not found.property.is_number or other_unit(asked.unit, found.property.unit):
        return None
    return asked.name


def met(target: str | Target, values: Sequence[Value]) -> Bool[np.ndarray, " b"]:
    """Which values meet a target: a single number within the tolerance of its property, anything else exactly.

    Args:
        target: of a property that is told (``told_by``), or its text.
        values: of its property; None, which meets nothing, where there is none.
    """
    target = read_target(target) if isinstance(target, str) else target
    told = told_by(target.property) if target.low == target.high else None
    tolerance = OBTAINABLE[told].tolerance if told is not None else 0.0

    def hit(value: Value) -> bool:
        if value is None:
            return False
        asked = parse_elements(value) if isinstance(value, str) else value
        return bool(target.met(asked, tolerance=tolerance))

    return np.array([hit(value) for value in values], dtype=bool)


PREDICTED: Mapping[str, Predict] = {
    "ml_bulk_modulus": load_predictor("bulk-modulus"),
    "dft_band_gap": load_predictor("band-gap"),
    "dft_mag_density": load_predictor("magnetic-density"),
}
"""What only a calculation can tell, by property."""


def exact(name: str, crystals: Sequence[Crystal | None]) -> list[Value]:
    """What follows from the crystals themselves: their chemical system, or one of ``DERIVED``; None of None."""
    if name == "chemical_system":
        return [None if crystal is None else chemical_system(crystal) for crystal in crystals]
    return [None if crystal is None else _rounded(name, DERIVED[name][1](crystal)) for crystal in crystals]


def obtain(
    names: Sequence[str],
    assessment: Assessment,
    *,
    predict: Mapping[str, Predict],
    work: Path,
    display: Display,
) -> dict[str, list[Value]]:
    """Properties of the relaxed crystals of an assessment.

    Args:
        names: of ``OBTAINABLE``.
        assessment: a row for each crystal asked for; it says the energies above the hull.
        predict: such as ``PREDICTED``.
        work: predictions are kept here; the same call continues.
        display: shows progress.

    Returns:
        by name a value for each row, None where there is none; chemical systems are text.
    """
    crystals = [assessment.relaxed(row) for row in range(len(assessment))]
    found: dict[str, list[Value]] = {}
    for name in names:
        if name == "energy_above_hull":
            found[name] = [_rounded(name, value) for value in assessment.values(name).tolist()]
        elif name in predict:
            found[name] = _predicted(name, crystals, predict[name], work, display)
        else:
            found[name] = exact(name, crystals)
    return found


def _predicted(
    name: str, crystals: Sequence[Crystal | None], predict: Predict, work: Path, display: Display
) -> list[Value]:
    """Predictions, those in the journal not made again."""
    journal = Journal(work / f"{name}.jsonl", "predictions", {"property": name})
    kept = {line["key"]: line["value"] for line in journal.lines}
    wanted = {crystal_key(crystal): crystal for crystal in crystals if crystal is not None}
    missing = [key for key in wanted if key not in kept]
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        for key, value in zip(part, predict([wanted[key] for key in part]).tolist(), strict=True):
            kept[key] = _rounded(name, value)
            journal.keep({"key": key, "value": kept[key]})
        display.update(name, len(wanted) - len(missing) + start + len(part), len(wanted))
    return [None if crystal is None else kept[crystal_key(crystal)] for crystal in crystals]


def _rounded(name: str, value: float) -> float | None:
    return round(float(value), OBTAINABLE[name].digits) if math.isfinite(value) else None
