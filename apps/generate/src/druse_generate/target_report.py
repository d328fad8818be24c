"""How drawn crystals compare with what was asked of them, where that follows from the crystals themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from druse_crystal.derived import DERIVED
from druse_guidance import Target
from druse_guidance.units import other_unit

from druse_generate.generating import Draw
from druse_generate.planning import Wishes


def targets_met(wishes: Wishes, draws: Sequence[Draw]) -> dict[str, Any]:
    """For each target how many crystals meet it, or how far they are off; null where only a calculation can tell.

    A range, a space group or a chemical system is met or not; of a single number the mean and the mean absolute
    difference are given. Crystals that failed do not meet anything.
    """
    plans = wishes.plans([draw.index for draw in draws])
    report: dict[str, Any] = {}
    for i, target in enumerate(wishes.targets):
        pairs = [(float(plan.asked[i][0]), _value(target, draw)) for plan, draw in zip(plans, draws, strict=True)]
        report[target.text] = _report(target, pairs)
    return report


def _value(target: Target, draw: Draw) -> float | list[int] | None:
    if draw.crystal is None:
        return None
    if target.property.kind == "chemical_system":
        return sorted(set(draw.crystal.atomic_numbers.tolist()))
    name = "space_group" if target.property.kind == "space_group" else target.property.name
    return DERIVED[name][1](draw.crystal) if _follows(target) else float("nan")


def _follows(target: Target) -> bool:
    """Whether a crystal itself tells the property, in the unit of the labels."""
    asked = target.property
    return not asked.is_number or (asked.name in DERIVED and not other_unit(asked.unit, DERIVED[asked.name][0]))


def _report(target: Target, pairs: Sequence[tuple[float, float | list[int] | None]]) -> dict[str, Any] | None:
    if not _follows(target):
        return None
    if not target.property.is_number or target.low < target.high:
        met = sum(value is not None and target.met(value) for _, value in pairs)
        return {"met": met, "requested": len(pairs)}
    values = np.array([value for _, value in pairs if isinstance(value, float)])
    values = values[np.isfinite(values)]
    off = np.abs(values - target.low)
    return {
        "asked": target.low,
        "mean": float(values.mean()) if len(values) else None,
        "mean_absolute_difference": float(off.mean()) if len(values) else None,
        "known": len(values),
        "requested": len(pairs),
    }
