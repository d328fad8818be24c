"""Properties that a network was trained with itself, without an adapter of Druse."""

from druse_scores import GemNet, Network

from druse_guidance.properties import ANY_NUMBER, SPACE_GROUPS, Property

_UNITS = {
    "dft_band_gap": "eV",
    "dft_bulk_modulus": "GPa",
    "dft_mag_density": "µB/Å³",
    "dft_shear_modulus": "GPa",
    "energy_above_hull": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "ml_bulk_modulus": "GPa",
}


def own_properties(network: Network) -> dict[str, Property]:
    """Properties of a network by name; of numbers mean and spread are known, and not how they are distributed."""
    if not isinstance(network, GemNet):
        return {}
    return {
        known.name: Property(
            name=known.name,
            kind=known.kind,
            unit=_UNITS.get(known.name, ""),
            mean=known.mean,
            std=known.std,
            levels=ANY_NUMBER if known.is_number else (),
            groups=tuple(range(1, SPACE_GROUPS + 1)) if known.kind == "space_group" else (),
        )
        for known in network.config.properties
    }
