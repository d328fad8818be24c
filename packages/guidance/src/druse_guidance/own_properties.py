"""Properties that a network was trained with itself, without an adapter of Druse."""

from druse_scores import GemNet, Network

from druse_guidance.properties import ANY_NUMBER, SPACE_GROUPS, Property
from druse_guidance.units import UNITS


def own_properties(network: Network) -> dict[str, Property]:
    """Properties of a network by name; of numbers mean and spread are known, and not how they are distributed."""
    if not isinstance(network, GemNet):
        return {}
    return {
        known.name: Property(
            name=known.name,
            kind=known.kind,
            unit=UNITS.get(known.name, ""),
            mean=known.mean,
            std=known.std,
            levels=ANY_NUMBER if known.is_number else (),
            groups=tuple(range(1, SPACE_GROUPS + 1)) if known.kind == "space_group" else (),
        )
        for known in network.config.properties
    }
