"""Which arrangements of sites the crystals of a request share: known ones, chosen ones, or random ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from druse_crystal.dataset import load_embedded
from druse_crystal.site_symmetry import SiteSymmetry

from druse_generate.config import SymmetryRequest
from druse_generate.known_sites import KnownSites
from druse_generate.random_sites import random_sites
from druse_generate.wyckoff_sites import chosen_positions, chosen_sites

EMBEDDED_GROUPS = Path(__file__).with_name("embedded_groups.txt")
"""Space groups of the embedded crystals, one a line in their order; `tools/embedded_groups.py` writes it."""


def choose_sites(
    symmetry: SymmetryRequest,
    sizes: Mapping[int, float],
    *,
    accept: Callable[[Sequence[int]], bool] | None,
    known: Sequence[int],
    seed: int,
) -> tuple[Sequence[SiteSymmetry], str]:
    """Arrangements of sites as they were asked for: those chosen, else those of embedded crystals, else random ones.

    Args:
        symmetry: the request.
        sizes: numbers of atoms that are possible, and how often each shall come.
        accept: whether orbits of these sizes can hold what else is asked for; None: they always can.
        known: numbers of atoms that the model knows, rising.
        seed: of all random numbers.

    Returns:
        the arrangements, and a warning where they are random; empty otherwise.

    Raises:
        ValueError: if there is none; says what there is.
    """
    holds = accept or (lambda _: True)
    group = symmetry.space_group
    if group is None:
        if accept is None:
            return embedded_sites().of_sizes([*sizes]), ""
        return embedded_sites().select([*sizes], accept=holds), ""
    if symmetry.wyckoff is not None:
        positions = chosen_positions(group, symmetry.wyckoff)
        _compare(symmetry, [position.num_atoms for position in positions], sizes, known=known, holds=holds)
        return chosen_sites(group, positions, seed=seed), ""
    if found := embedded_sites().of_group(group, [*sizes], accept=holds):
        return found, ""
    text = f"no embedded crystal of space group {group} has sites for what was asked for"
    try:
        drawn = random_sites(group, sizes, accept=holds, seed=seed)
    except ValueError as error:
        raise ValueError(f"{text}, and {error}") from error
    return drawn, f"{text}: {len(drawn)} arrangements of the group's Wyckoff positions were drawn at random"


@cache
def embedded_sites() -> KnownSites:
    """The arrangements of sites of the embedded crystals; spglib would look for all their groups for ten seconds."""
    return KnownSites(load_embedded().crystals, np.loadtxt(EMBEDDED_GROUPS, dtype=np.int64))


def _compare(
    symmetry: SymmetryRequest,
    orbit_sizes: Sequence[int],
    sizes: Iterable[int],
    *,
    known: Sequence[int],
    holds: Callable[[Sequence[int]], bool],
) -> None:
    """Refuse chosen Wyckoff positions that the model's cells, or what else was asked for, cannot hold."""
    atoms = sum(orbit_sizes)
    text = (
        f"Wyckoff positions {symmetry.wyckoff} of space group {symmetry.space_group} have "
        f"{'+'.join(map(str, orbit_sizes))} atoms in the primitive cell"
    )
    if atoms not in known:
        some = f"{known[0]} to {known[-1]}" if len(known) > known[-1] - known[0] else ", ".join(map(str, known))
        raise ValueError(f"{text}, and the model knows cells of {some} atoms: choose others")
    if atoms not in sizes:
        raise ValueError(
            f"{text}, and what else was asked for needs cells of {', '.join(map(str, sizes))}: one of both has to go"
        )
    if not holds(orbit_sizes):
        raise ValueError(
            f"{text}, each orbit of one element, and cannot hold the composition that was asked for: choose others"
        )
