"""What each crystal of a run shall be: its size, its numbers of atoms, its sites, what it keeps of a structure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from druse_crystal.site_symmetry import SiteSymmetry
from druse_diffusion import CrystalProcess, RandomStreams, ScoreModel
from druse_guidance import ElementCounts, Target
from jaxtyping import Float64, Int64

from druse_generate.config import GenerateConfig
from druse_generate.known_crystal import KnownCrystal, arrange
from druse_generate.seed_request import Seed

_SIZES = 1 << 31  # added to the index of a crystal, so that sizes and noise use different numbers
_TARGETS = 1 << 32  # the same for what is asked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """One crystal to be drawn.

    Attributes:
        index: its number in the run.
        num_atoms: in the cell.
        bounds: on the atoms of each element; None: whatever comes.
        sites: that it has to occupy; None: whatever comes.
        species: (n,) that a network is given which does not draw them; None: whatever comes.
        known: what it starts from or keeps; None: nothing.
        asked: of each target of the request what this crystal is asked for.
    """

    index: int
    num_atoms: int
    bounds: ElementCounts | None = None
    sites: SiteSymmetry | None = None
    species: Int64[np.ndarray, " n"] | None = None
    known: KnownCrystal | None = None
    asked: tuple[Float64[np.ndarray, "_"], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Wishes:
    """A request, checked against a model: what its crystals can be.

    Attributes:
        config: the request.
        sizes: numbers of atoms, rising.
        weights: how often each comes.
        sites: arrangements of sites; empty if no symmetry was asked for.
        warnings: sentences about what may not come out as it was meant.
        seed: the structure to start from, if there is one.
        allowed: atomic numbers that atoms which are not kept may have.
        required: atomic numbers that such atoms have to bring.
        targets: of properties.
        given_species: whether the model is given the species and does not draw them.
        model: the network, led to the properties asked for, held to the elements allowed, led to those that have to
            occur.
        process: the process that is run backwards.
        device: where the model is.
    """

    config: GenerateConfig
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    sites: Sequence[SiteSymmetry]
    warnings: tuple[str, ...]
    seed: Seed | None
    allowed: tuple[int, ...]
    required: tuple[int, ...]
    targets: tuple[Target, ...]
    given_species: bool
    model: ScoreModel
    process: CrystalProcess
    device: torch.device

    def plans(self, indices: Sequence[int]) -> list[Plan]:
        """What the crystals with these numbers shall be: a function of the seed and their number alone."""
        if not len(indices):
            return []
        streams = RandomStreams(self.config.seed, torch.tensor(indices, dtype=torch.long) + _SIZES)
        uniform = streams.crystal_uniform(1).squeeze(-1).tolist()
        streams = RandomStreams(self.config.seed, torch.tensor(indices, dtype=torch.long) + _TARGETS)
        levels = streams.crystal_uniform(max(1, len(self.targets))).tolist()
        return [self._plan(index, u, level) for index, u, level in zip(indices, uniform, levels, strict=True)]

    def _plan(self, index: int, uniform: float, levels: Sequence[float]) -> Plan:
        if len(self.sites):
            sites = self.sites[int(uniform * len(self.sites))]
            size = sites.num_atoms
        else:
            sites, shares = None, np.cumsum(np.array(self.weights) / sum(self.weights))
            size = self.sizes[int(np.searchsorted(shares[:-1], uniform))]
        bounds = bounds_of(self.config, size, self.allowed)
        known = None
        if self.seed is not None:
            known = arrange(
                self.seed, size, sites, allowed=self.allowed, bounds=bounds, entropy=[self.config.seed, index]
            )
        return Plan(
            index=index,
            num_atoms=size,
            bounds=bounds,
            sites=sites,
            species=_species(bounds) if self.given_species and bounds is not None else None,
            known=known,
            asked=tuple(t.draw(level) for t, level in zip(self.targets, levels, strict=False)),
        )


def bounds_of(config: GenerateConfig, num_atoms: int, allowed: Sequence[int]) -> ElementCounts | None:
    """Bounds on the atoms of a crystal of this size, new ones among the elements allowed; None if there are none.

    Raises:
        ValueError: for counts that a crystal of this size cannot have.
    """
    bounds = config.composition.bounds(num_atoms)
    return None if bounds is None else replace(bounds, among=frozenset(allowed))


def _species(bounds: ElementCounts) -> Int64[np.ndarray, " n"]:
    """Atomic numbers, rising, of a crystal whose numbers of atoms are fixed."""
    return np.array([z for z, n in sorted(bounds.least.items()) for _ in range(n)], dtype=np.int64)
