"""Properties that were asked for, against what is built into every crystal: contradictions are refused at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols
from druse_crystal import Crystal
from druse_crystal.derived import hhi_of
from druse_crystal.symmetry import crystal_system, space_group
from druse_guidance import Target

from druse_generate.composition_request import parse_formula
from druse_generate.config import GenerateConfig
from druse_generate.random_sites import orbit_sizes
from druse_generate.seed_request import Seed
from druse_generate.wyckoff_sites import has_positions, positions_of

_LOW = ("triclinic", "monoclinic", "orthorhombic")
_WITHIN: Mapping[str, tuple[str, ...]] = {
    "triclinic": _LOW[:1],
    "monoclinic": _LOW[:2],
    "orthorhombic": _LOW,
    "tetragonal": (*_LOW, "tetragonal"),
    "trigonal": (*_LOW[:2], "trigonal"),
    "hexagonal": (*_LOW, "trigonal", "hexagonal"),
    "cubic": (*_LOW, "tetragonal", "trigonal", "cubic"),
}
"""Crystal systems whose rotations a lattice has that is as symmetric as the key."""
_SLACK = 0.1  # standard deviations of the labels by which a target may miss what is possible


def refuse_contradictions(
    targets: Sequence[Target],
    config: GenerateConfig,
    *,
    allowed: Sequence[int],
    occurring: Iterable[int],
    known: Sequence[int],
    seed: Seed | None = None,
) -> None:
    """Refuse targets that no crystal of the request can meet.

    Args:
        targets: of properties.
        config: the request.
        allowed: atomic numbers that new atoms may have.
        occurring: atomic numbers of which every crystal will have an atom.
        known: atomic numbers of the training data.
        seed: a structure to start from.

    Raises:
        ValueError: names the target and what it contradicts.
    """
    composition = _composition(config, seed)
    certain = sorted({*occurring, *composition})
    possible = certain if composition else sorted({*allowed, *certain})
    for target in targets:
        if target.property.kind == "space_group":
            _compare_symmetry(target, config, seed)
        elif target.property.kind == "chemical_system":
            _compare_elements(target, possible=possible, certain=certain, known=known)
    for target in targets:  # of which the system is as certain as what is built in
        if target.property.kind == "chemical_system":
            possible = certain = list(target.elements)
    for target in targets:
        if target.property.name in _REACHABLE:
            low, high = _REACHABLE[target.property.name](composition, possible, certain)
            slack = _SLACK * target.property.std
            if target.high < low - slack or target.low > high + slack:
                reach = f"{low:.4g}" if np.isclose(low, high) else f"{low:.4g} to {high:.4g}"
                raise ValueError(
                    f"{target.text}: with the elements that were asked for it is {reach}: one of both has to go"
                )


def _composition(config: GenerateConfig, seed: Seed | None) -> Mapping[int, int]:
    """Atoms of each element, or multiples of it, that every crystal will have; empty if that is open."""
    if seed is None:
        return {} if config.composition.formula is None else parse_formula(config.composition.formula)
    n = seed.crystal.num_atoms
    whole = config.num_atoms in (None, (n, n)) and seed.kept_counts.total() == n
    return seed.kept_counts if whole else {}


def sizes_for(
    targets: Sequence[Target], sizes: Sequence[int], *, holds: Callable[[Sequence[int]], bool]
) -> tuple[int, ...]:
    """Of the given numbers of atoms those with which a crystal can meet the targets.

    Args:
        targets: of properties.
        sizes: numbers of atoms.
        holds: whether orbits of these sizes can hold what else was asked for.

    Raises:
        ValueError: if there is none; says what is possible.
    """
    low, high = min(sizes), max(sizes)
    cells = f"cells of {low} atoms" if low == high else f"cells of {low} to {high} atoms"
    for target in targets:
        elements = round(target.low) if target.property.name == "num_elements" else len(target.elements)
        possible = tuple(n for n in sizes if n >= elements)
        if not possible:
            raise ValueError(f"{target.text} has {elements} elements, and {cells} are to be drawn: allow more atoms")
        sizes = possible
        # without PyXtal nobody knows the positions, and the target stays what the network makes of it
        if target.property.kind == "space_group" and has_positions():
            positions = positions_of(int(target.low))
            possible = tuple(n for n in sizes if any(holds(orbits) for orbits in orbit_sizes(positions, n)))
            if not possible:
                orbits = ", ".join(str(n) for n in sorted({position.num_atoms for position in positions}))
                raise ValueError(
                    f"{target.text}: the orbits of this group have {orbits} atoms in the primitive cell, each of one "
                    f"element, and {cells} cannot hold what else was asked for: ask for other numbers or another group"
                )
            sizes = possible
    return tuple(sizes)


def _compare_symmetry(target: Target, config: GenerateConfig, seed: Seed | None) -> None:
    built_in, group = config.symmetry.space_group, int(target.low)
    if config.symmetry.symmetric and seed is not None:
        raise ValueError(
            f"{target.text} and the symmetry of the structure to start from were asked for at once: leave one of both "
            "out"
        )
    if seed is not None and seed.lattice and crystal_system(group) not in _systems_of(seed.crystal):
        raise ValueError(
            f"{target.text}: the lattice that is kept is not {crystal_system(group)}, which "
            "this group needs: do not keep it, or ask for another group"
        )
    if built_in is not None and built_in != group:
        raise ValueError(f"{target.text} and space group {built_in} were asked for at once: one of both has to go")
    if config.symmetry.symmetric:
        raise ValueError(
            f"{target.text} and the symmetry of known crystals, whatever their group, were asked for at once: build "
            f"the group in (--space-group {group}), or leave one of both out"
        )


def _systems_of(crystal: Crystal) -> tuple[str, ...]:
    """Crystal systems that crystals with this lattice can have."""
    point = crystal.replace(frac_coords=np.zeros((1, 3)), atomic_numbers=np.array([1]))
    return _WITHIN[space_group(point).crystal_system]


def _compare_elements(target: Target, *, possible: Sequence[int], certain: Sequence[int], known: Sequence[int]) -> None:
    for z in target.elements:
        if z not in known:
            raise ValueError(f"{target.text}: no crystal that the model was trained on holds {chemical_symbols[z]}")
        if z not in possible:
            raise ValueError(f"{target.text}: {chemical_symbols[z]} is not allowed at once, one of both has to go")
    for z in certain:
        if z not in target.elements:
            raise ValueError(f"{target.text}: {chemical_symbols[z]} was asked for at once, one of both has to go")


def _reachable_hhi(
    composition: Mapping[int, int], possible: Sequence[int], _certain: Sequence[int]
) -> tuple[float, float]:
    """Least and greatest index: an average over the elements lies between theirs, that of a composition is known."""
    if composition:
        value = hhi_of(composition)
        return (-np.inf, np.inf) if np.isnan(value) else (value, value)
    values = np.array([hhi_of({z: 1}) for z in possible])
    return (-np.inf, np.inf) if np.isnan(values).all() else (float(np.nanmin(values)), float(np.nanmax(values)))


def _reachable_elements(
    _composition: Mapping[int, int], possible: Sequence[int], certain: Sequence[int]
) -> tuple[int, int]:
    return max(1, len(certain)), len(possible)


_REACHABLE = {"hhi_score": _reachable_hhi, "num_elements": _reachable_elements}
"""Least and greatest values that the elements of a request leave possible."""
