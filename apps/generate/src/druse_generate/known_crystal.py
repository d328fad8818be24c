"""A structure to start from, arranged for each crystal to be drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from druse_crystal import Crystal
from druse_crystal.lattice import symmetric_form
from druse_crystal.site_symmetry import SiteSymmetry
from druse_diffusion import MASK
from druse_guidance import ElementCounts
from jaxtyping import Bool, Float64, Int64

from druse_generate.seed_request import Seed


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownCrystal:
    """A structure to start from, arranged for one crystal to be drawn.

    Attributes:
        lattice: (3, 3) in its symmetric form, Å.
        frac_coords: (n, 3).
        atomic_numbers: (n,); the mask where nothing is known.
        keeps_lattice: whether the lattice is kept.
        keeps_coordinates: (n,) of which atoms.
        keeps_species: (n,) of which atoms.
    """

    lattice: Float64[np.ndarray, "3 3"]
    frac_coords: Float64[np.ndarray, "n 3"]
    atomic_numbers: Int64[np.ndarray, " n"]
    keeps_lattice: bool
    keeps_coordinates: Bool[np.ndarray, " n"]
    keeps_species: Bool[np.ndarray, " n"]


def arrange(
    seed: Seed,
    size: int,
    sites: SiteSymmetry | None,
    *,
    allowed: Sequence[int],
    bounds: ElementCounts | None,
    entropy: list[int],
) -> KnownCrystal:
    """The structure in the order of the crystal to be drawn: as it is, or what is kept of it first and then the new.

    Args:
        seed: the structure.
        size: number of atoms to be drawn.
        sites: of the structure, if its symmetry is kept.
        allowed: elements that atoms which are not kept may start with; others start masked.
        bounds: that have to be within reach from the start; where they are not, atoms that are not kept are masked, as
            few as that takes.
        entropy: decides which sites are substituted, and which masked.
    """
    crystal, n = in_symmetric_form(seed.crystal), seed.crystal.num_atoms
    order = np.arange(n) if size == n else seed.kept
    new = size - len(order)
    species, numbers = seed.species[order].copy(), crystal.atomic_numbers[order].copy()
    if seed.substitution is not None:
        candidates = np.flatnonzero(numbers == seed.substitution.element)
        chosen = np.random.default_rng(entropy).choice(candidates, seed.substitution.number, replace=False)
        species[chosen], numbers[chosen] = False, MASK
    numbers[~species & ~np.isin(numbers, list(allowed))] = MASK
    if bounds is not None:
        orbits = np.arange(len(order)) if sites is None else sites.orbit
        numbers = _within_reach(numbers, species, orbits, new, bounds, np.random.default_rng([*entropy, 1]))
    frac_coords = crystal.frac_coords[order] if sites is None else sites.origin
    return KnownCrystal(
        lattice=crystal.lattice,
        frac_coords=np.concatenate([frac_coords, np.zeros((new, 3))]),
        atomic_numbers=np.concatenate([numbers, np.full(new, MASK)]),
        keeps_lattice=seed.lattice,
        keeps_coordinates=np.concatenate([seed.coordinates[order], np.full(new, False)]),
        keeps_species=np.concatenate([species, np.full(new, False)]),
    )


def _within_reach(
    numbers: Int64[np.ndarray, " n"],
    kept: Bool[np.ndarray, " n"],
    orbits: Int64[np.ndarray, " n"],
    new: int,
    bounds: ElementCounts,
    rng: np.random.Generator,
) -> Int64[np.ndarray, " n"]:
    """The elements with which to start: as many of them as leave the bounds within reach, and the others masked."""

    def masked(chosen: Sequence[int]) -> Int64[np.ndarray, " n"]:
        return np.where(~kept & np.isin(orbits, chosen), MASK, numbers)

    def reach(start: Int64[np.ndarray, " n"]) -> bool:
        free = np.unique(orbits[start == MASK], return_counts=True)[1].tolist()
        return bounds.possible([*free, *[1] * new], Counter(start[start != MASK].tolist()))

    waiting = rng.permutation(np.unique(orbits[~kept & (numbers != MASK)])).tolist()
    chosen: list[int] = []
    while not reach(masked(chosen)) and waiting:
        chosen.append(waiting.pop())
    for orbit in chosen[:]:  # some may have been no help
        if reach(masked(fewer := [other for other in chosen if other != orbit])):
            chosen = fewer
    return masked(chosen)


def in_symmetric_form(crystal: Crystal) -> Crystal:
    """The same with its lattice in symmetric form."""
    return crystal.replace(lattice=symmetric_form(torch.tensor(crystal.lattice)).numpy())
