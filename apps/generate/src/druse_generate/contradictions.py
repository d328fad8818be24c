"""Properties that were asked for, against what is built into every crystal: contradictions are refused at once."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ase.data import chemical_symbols
from druse_crystal.derived import hhi_of
from druse_guidance import Target

from druse_generate.composition_request import parse_formula
from druse_generate.config import GenerateConfig
from druse_generate.random_sites import orbit_sizes
from druse_generate.wyckoff_sites import has_positions, positions_of

_SLACK = 0.1  # standard deviations of the labels by which a target may miss what is possible


def refuse_contradictions(
    targets: Sequence[Target],
    config: GenerateConfig,
    *,
    allowed: Sequence[int],
    occurring: Iterable[int],
    known: Sequence[int],
) -> None:
    """Refuse targets that no crystal of the request can meet.

    Args:
        targets: of properties.
        config: the request.
        allowed: atomic numbers that new atoms may have.
        occurring: atomic numbers of which every crystal will have an atom.
        known: atomic numbers of the training data.

    Raises:
        ValueError: names the target and what it contradicts.
    """
    certain = sorted(set(occurring))
    possible = sorted({*allowed, *certain})
    for target in targets:
        if target.property.kind == "space_group":
            _compare_symmetry(target, config)
        elif target.property.kind == "chemical_system":
            _compare_elements(target, possible=possible, certain=certain, known=known)
        elif target.property.name in _REACHABLE:
            low, high = _REACHABLE[target.property.name](config, possible, certain)
            slack = _SLACK * target.property.std
            if target.high < low - slack or target.low > high + slack:
                reach = f"{low:.4g}" if np.isclose(low, high) else f"{low:.4g} to {high:.4g}"
                raise ValueError(
                    f"{target.text}: with the elements that were asked for it is {reach}: one of both has to go"
                )


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
        possible = tuple(n for n in sizes if n >= len(target.elements))
        if not possible:
            raise ValueError(
                f"{target.text} has {len(target.elements)} elements, and {cells} are to be drawn: allow more atoms"
            )
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


def _compare_symmetry(target: Target, config: GenerateConfig) -> None:
    built_in, group = config.symmetry.space_group, int(target.low)
    if built_in is not None and built_in != group:
        raise ValueError(f"{target.text} and space group {built_in} were asked for at once: one of both has to go")
    if config.symmetry.symmetric:
        raise ValueError(
            f"{target.text} and the symmetry of known crystals, whatever their group, were asked for at once: build "
            f"the group in (--space-group {group}), or leave one of both out"
        )


def _compare_elements(target: Target, *, possible: Sequence[int], certain: Sequence[int], known: Sequence[int]) -> None:
    for z in target.elements:
        if z not in known:
            raise ValueError(f"{target.text}: no crystal that the model was trained on holds {chemical_symbols[z]}")
        if z not in possible:
            raise ValueError(f"{target.text}: {chemical_symbols[z]} is not allowed at once, one of both has to go")
    for z in certain:
        if z not in target.elements:
            raise ValueError(f"{target.text}: {chemical_symbols[z]} was asked for at once, one of both has to go")


def _reachable_hhi(config: GenerateConfig, possible: Sequence[int], _certain: Sequence[int]) -> tuple[float, float]:
    """Least and greatest index: an average over the elements lies between theirs, that of a formula is known."""
    if config.composition.formula is not None and not config.seed_structure.restricts:
        value = hhi_of(parse_formula(config.composition.formula))
        return (-np.inf, np.inf) if np.isnan(value) else (value, value)
    values = np.array([hhi_of({z: 1}) for z in possible])
    return (-np.inf, np.inf) if np.isnan(values).all() else (float(np.nanmin(values)), float(np.nanmax(values)))


def _reachable_elements(_config: GenerateConfig, possible: Sequence[int], certain: Sequence[int]) -> tuple[int, int]:
    return max(1, len(certain)), len(possible)


_REACHABLE = {"hhi_score": _reachable_hhi, "num_elements": _reachable_elements}
"""Least and greatest values that the elements of a request leave possible."""
