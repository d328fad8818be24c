"""What is strange about the labels of a property: too few of them, or numbers that another unit would explain."""

from collections.abc import Mapping

import numpy as np

from druse_guidance.properties import Property

_ENOUGH = 1000  # MatterGen (arXiv:2312.03687), appendix D: its sparsest property has 5,000 labels
_STRANGE = 0.02  # share of the labels out of the usual range from which on the unit is in doubt
USUAL: Mapping[str, tuple[float, float]] = {
    "GPa": (1.0, 1000.0),
    "eV": (-0.01, 25.0),
    "eV/atom": (-15.0, 10.0),
    "µB/Å³": (-0.001, 0.5),
    "g/cm³": (0.05, 25.0),
}
"""Between which numbers elastic moduli, band gaps, energies, magnetisations and densities of crystals lie, by unit.

Diamond's bulk modulus is 443 GPa, solid neon's 1 GPa; the gap of solid helium is 20 eV; iron has 0.19 µB/Å³, osmium
22.6 g/cm³.
"""


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
    if property_.is_number and property_.unit in USUAL and property_.has_distribution:
        low, high = USUAL[property_.unit]
        levels = np.array(property_.levels)
        outside = float(((levels < low) | (levels > high)).mean())
        if outside > _STRANGE:
            found.append(
                f"{outside:.0%} of the labels of {property_.name} are not between {low:g} and {high:g} "
                f"{property_.unit} (their median is {levels[len(levels) // 2]:.3g}): check their unit, or set bounds "
                "(low, high) beyond which labels count as unknown"
            )
    return found
