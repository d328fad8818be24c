"""What is strange about the labels of a property: too few of them, or numbers that another unit would explain."""

import numpy as np

from druse_guidance.properties import Property
from druse_guidance.units import PURE, USUAL, usual_spelling

_ENOUGH = 1000  # MatterGen (arXiv:2312.03687), appendix D: its sparsest property has 5,000 labels
_STRANGE = 0.02  # share of the labels out of the usual range from which on the unit is in doubt


def doubts(property_: Property) -> list[str]:
    """Sentences about labels that a user should look at before an adapter learns from them.

    Args:
        property_: with the statistics of its labels (``Property.fitted``).
    """
    found = []
    if property_.num_labels < _ENOUGH:
        found.append(
            f"{property_.name} has {property_.num_labels:,} labels: expect little of so few, some thousands are usual; "
            "look at asked-for against obtained values (calibration) before you trust it"
        )
    if property_.is_number and property_.has_distribution:
        found += _doubts_of_unit(property_)
    return found


def _doubts_of_unit(property_: Property) -> list[str]:
    """Whether the labels of a number are what its unit lets expect."""
    name, unit = property_.name, usual_spelling(property_.unit)
    pure = unit == "" and name in PURE
    if not pure and unit not in USUAL:
        what = f"the unit {unit!r} of {name} is not known" if unit else f"{name} has no unit"
        return [
            f"{what}, so that nobody checked whether its labels are usual numbers: set it (unit) if it is one of "
            f"{', '.join(USUAL)}"
        ]
    low, high = PURE[name] if pure else USUAL[unit]
    upper = f"{high:g} {unit}".rstrip()
    levels = np.array(property_.levels)
    outside = float(((levels < low) | (levels > high)).mean())
    if outside <= _STRANGE:
        return []
    return [
        f"{outside:.0%} of the labels of {name} are not between {low:g} and {upper} (their median is "
        f"{levels[len(levels) // 2]:.3g}): check their {'scale' if pure else 'unit'}, or set bounds (low, high) beyond "
        "which labels count as unknown"
    ]
