"""What each crystal of a run shall be: its size, its numbers of atoms, its sites, what it keeps of a structure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from druse_crystal import Crystal
from druse_crystal.lattice import symmetric_form
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry
from druse_diffusion import MASK, RandomStreams, ScoreModel
from druse_guidance import (
    AdaptedNetwork,
    Adapter,
    AllowedElements,
    ClassifierFreeGuidance,
    ElementCounts,
    PublishedElements,
    RequiredElements,
    Target,
    own_properties,
)
from druse_scores import Checkpoint, PairNetwork, has_bfloat16
from jaxtyping import Bool, Float64, Int64

from druse_generate.config import GenerateConfig, SamplerConfig
from druse_generate.contradictions import refuse_contradictions, sizes_for
from druse_generate.property_request import properties_of
from druse_generate.seed_request import Seed
from druse_generate.site_choice import choose_sites, embedded_sites

_SIZES = 1 << 31  # added to the index of a crystal, so that sizes and noise use different numbers
_TARGETS = 1 << 32  # the same for what is asked for


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
        device: where it is.
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
            species=species_of(bounds) if self.given_species and bounds is not None else None,
            known=known,
            asked=tuple(t.draw(level) for t, level in zip(self.targets, levels, strict=False)),
        )


def check(checkpoint: Checkpoint, config: GenerateConfig, adapters: Sequence[Adapter] = ()) -> Wishes:
    """Check a request against a model, whose network takes the precision asked for.

    Args:
        checkpoint: the model.
        config: the request.
        adapters: that know the properties asked for.

    Raises:
        ValueError: if the model does not know the numbers of atoms or the elements asked for, too many elements have to
            occur, wishes exclude each other, no arrangement of sites can hold the composition, or the hardware has no
            products in the precision asked for; says what there is.
    """
    seed = config.seed_structure.read()
    if seed is not None and config.symmetry.space_group is not None:
        raise ValueError("a space group and a structure to start from were given at once: the structure has its own")
    if seed is not None and config.symmetry.symmetric and (seed.strength is None or len(seed.kept)):
        raise ValueError(
            "symmetry goes together with variations of a structure, but not with parts that are kept or substituted: "
            "leave one of them out"
        )
    allowed, required = _elements(checkpoint, config, seed)
    unknown = {*allowed, *required} - {*checkpoint.elements}
    if unknown and "assumed" in checkpoint.provenance:
        raise ValueError(
            "nobody said at its import which elements the model knows, those of Alex-MP-20 are assumed, and "
            f"{', '.join(map(_symbol, sorted(unknown)))} is not one: leave it out, or import the model with --data"
        )
    device = next(checkpoint.network.parameters()).device
    if config.mixed_precision and not has_bfloat16(device):
        raise ValueError(
            f"mixed precision was asked for, and this {device.type} has no instructions for products of bfloat16 "
            "matrices, so that it would only be slower: leave it out"
        )
    checkpoint.network.mixed_precision = config.mixed_precision
    targets = config.properties.read(properties_of(checkpoint.network, adapters))
    refuse_contradictions(
        targets,
        config,
        allowed=allowed,
        occurring=(*required, *(() if seed is None else seed.elements)),
        known=checkpoint.elements,
        seed=seed,
    )
    sizes = _sizes(checkpoint, config, seed, allowed)
    if seed is None:
        sizes = sizes_for(targets, sizes, holds=lambda orbits: _holds(config, orbits, allowed))
    if checkpoint.given_species:
        sizes = _sizes_of_given_species(config, sizes, allowed)
    weights = _weights(checkpoint, config, sizes, targets)
    weighed = dict(zip(sizes, weights, strict=True))
    fewest = max((len(target.elements) for target in targets), default=0)
    sites, sites_warning = _sites(checkpoint, config, seed, weighed, allowed, fewest_orbits=fewest)
    model: ScoreModel = checkpoint.network
    if targets and isinstance(checkpoint.network, PairNetwork):
        model = AdaptedNetwork(checkpoint.network, adapters).to(device).eval()
    if config.sampler.grid == "published":
        model = PublishedElements(model, checkpoint.elements)
    if targets:
        asked = config.properties
        model = ClassifierFreeGuidance(model=model, scale=asked.guidance, interval=asked.interval)
    return Wishes(
        config=config,
        sizes=sizes,
        weights=weights,
        sites=sites,
        warnings=tuple(
            sentence
            for sentence in (
                sites_warning,
                *(target.warning for target in targets),
                seed.warning if seed else "",
                config.properties.warning,
                *_without_effect(checkpoint, config, targets, allowed, seed),
            )
            if sentence
        ),
        seed=seed,
        allowed=allowed,
        required=required,
        targets=targets,
        given_species=checkpoint.given_species,
        model=_restricted(model, allowed, required, known=checkpoint.elements),
        device=device,
    )


def _without_effect(
    checkpoint: Checkpoint, config: GenerateConfig, targets: Sequence[Target], allowed: Sequence[int], seed: Seed | None
) -> Iterator[str]:
    """Sentences on what the model could do with a request and is not asked to, or is asked and cannot."""
    system, group = config.composition.chemical_system, config.symmetry.space_group
    asked = {target.property.name for target in targets}
    for name, value in {"chemical_system": system, "space_group": group}.items():
        if value is not None and name in own_properties(checkpoint.network) and name not in asked:
            yield (
                f"the model learnt {name}, and nothing of that is asked of it; {value} is kept by force alone: add "
                f"--property {name}={value} to use what it learnt"
            )
    if seed is not None and seed.strength is not None:
        open_sites = set(seed.crystal.atomic_numbers[~seed.species].tolist()) - set(allowed)
        if open_sites:
            yield (
                f"the structure to start from holds {', '.join(map(_symbol, sorted(open_sites)))}, which no new atom "
                "may be: these sites start without an element"
            )
    if checkpoint.given_species and config.sampler.species_temperature != SamplerConfig().species_temperature:
        yield "the model is given the species and draws none: their temperature has no effect"


def _restricted(
    model: ScoreModel, allowed: Sequence[int], required: Sequence[int], *, known: Sequence[int]
) -> ScoreModel:
    restricted = AllowedElements(model, allowed, known=known)
    return RequiredElements(restricted, required) if required else restricted


def _elements(
    checkpoint: Checkpoint, config: GenerateConfig, seed: Seed | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    allowed = config.composition.allowed(checkpoint.elements)
    if seed is None:
        return allowed, config.composition.required
    for z in seed.elements if seed.strength is None else sorted(set(seed.crystal.atomic_numbers.tolist())):
        if z not in checkpoint.elements:
            raise ValueError(
                f"the structure to start from holds {_symbol(z)}, and no crystal that the model was trained "
                "on does: take another structure, or keep other parts of it"
            )
    for z in seed.elements:
        if z not in allowed:
            raise ValueError(f"{_symbol(z)} is kept of the structure and not allowed: one of both has to go")
    required = tuple(z for z in config.composition.required if z not in seed.elements)
    if seed.substitution is not None:
        by = seed.substitution.by
        for z in by:
            if z not in allowed and z in checkpoint.elements:
                raise ValueError(f"{_symbol(z)} is to be substituted in and not allowed at once: one has to go")
        for z in required:
            if z not in by:
                raise ValueError(f"{_symbol(z)} was asked for, and is neither kept of the structure nor substituted in")
        allowed = by
    return allowed, required


def _symbol(z: int) -> str:
    return chemical_symbols[z] if z < len(chemical_symbols) else f"number {z}"


def _sizes(
    checkpoint: Checkpoint, config: GenerateConfig, seed: Seed | None, allowed: Sequence[int]
) -> tuple[int, ...]:
    known = sorted(checkpoint.num_atoms)
    if seed is not None:
        sizes = config.composition.sizes(seed.sizes(config.num_atoms, known))
        kept = seed.kept_counts
        possible = [
            n
            for n in sizes
            if (bounds := bounds_of(config, n, allowed)) is None or bounds.possible([1] * (n - kept.total()), kept)
        ]
        if not possible:
            raise ValueError(
                "what is kept of the structure and what was asked of the composition exclude each other: keep less, or "
                "ask for other counts or other numbers of atoms"
            )
        return tuple(possible)
    low, high = config.num_atoms or (known[0], known[-1])
    if low < known[0] or high > known[-1]:
        raise ValueError(
            f"cells of {_range(low, high)} atoms were asked for, the model knows cells of "
            f"{_range(known[0], known[-1])} atoms: ask for a number or a range within these"
        )
    sizes = [n for n in known if low <= n <= high]
    if not sizes:
        raise ValueError(
            f"no crystal of the training data has {_range(low, high)} atoms: ask for a range with one of "
            f"{', '.join(map(str, known))}"
        )
    return tuple(config.composition.sizes(sizes))


def _weights(
    checkpoint: Checkpoint, config: GenerateConfig, sizes: Sequence[int], targets: Sequence[Target]
) -> tuple[float, ...]:
    """How often each number of atoms comes: as in training, or as in known crystals of a space group asked for."""
    asked = [int(target.low) for target in targets if target.property.kind == "space_group"]
    if asked and not config.symmetry.restricts and not config.seed_structure.restricts:
        counts = embedded_sites().sizes(asked[0])
        if any(counts[n] for n in sizes):
            return tuple(float(counts[n]) for n in sizes)
    return tuple(float(checkpoint.num_atoms.get(n, 1)) for n in sizes)


def _sizes_of_given_species(config: GenerateConfig, sizes: Sequence[int], allowed: Sequence[int]) -> tuple[int, ...]:
    """Of the numbers of atoms those that leave no species open, which a model of given species needs."""
    why = "the model was trained to find structures of given species"
    for name, given in (
        ("properties", config.properties.restricts),
        ("a symmetry", config.symmetry.restricts),
        ("a structure to start from", config.seed_structure.restricts),
    ):
        if given:
            raise ValueError(f"{why}, and {name} cannot be asked of it: leave this out, or take another model")
    bounds = {n: bounds_of(config, n, allowed) for n in sizes}
    exact = tuple(n for n, b in bounds.items() if b is not None and b.least == b.most and sum(b.least.values()) == n)
    if not exact:
        raise ValueError(f"{why}: give all of them, by a formula (--formula Li2FeO4) or by counts (--counts Na:4,Cl:4)")
    return exact


def species_of(bounds: ElementCounts) -> Int64[np.ndarray, " n"]:
    """Atomic numbers, rising, of a crystal whose numbers of atoms are fixed."""
    return np.array([z for z, n in sorted(bounds.least.items()) for _ in range(n)], dtype=np.int64)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def bounds_of(config: GenerateConfig, num_atoms: int, allowed: Sequence[int]) -> ElementCounts | None:
    """Bounds on the atoms of a crystal of this size, new ones among the elements allowed; None if there are none.

    Raises:
        ValueError: for counts that a crystal of this size cannot have.
    """
    bounds = config.composition.bounds(num_atoms)
    return None if bounds is None else replace(bounds, among=frozenset(allowed))


def _holds(config: GenerateConfig, orbit_sizes: Sequence[int], allowed: Sequence[int]) -> bool:
    """Whether orbits of these sizes, each of one element, can hold the composition asked for."""
    bounds = bounds_of(config, sum(orbit_sizes), allowed)
    return bounds is None or bounds.possible(orbit_sizes)


def _sites(
    checkpoint: Checkpoint,
    config: GenerateConfig,
    seed: Seed | None,
    sizes: Mapping[int, float],
    allowed: Sequence[int],
    *,
    fewest_orbits: int = 0,
) -> tuple[Sequence[SiteSymmetry], str]:
    """Arrangements of sites with some of these numbers of atoms, each with its weight, and a warning about them.

    An orbit has one element, so that there are as many orbits as elements at least.
    """

    def holds(orbit_sizes: Sequence[int]) -> bool:
        return len(orbit_sizes) >= fewest_orbits and _holds(config, orbit_sizes, allowed)

    if not config.symmetry.restricts:
        return (), ""
    if seed is None:
        free = not fewest_orbits and all(bounds_of(config, n, allowed) is None for n in sizes)
        return choose_sites(
            config.symmetry, sizes, accept=None if free else holds, known=sorted(checkpoint.num_atoms), seed=config.seed
        )
    sites = find_site_symmetry(_in_symmetric_form(seed.crystal))
    if sites is None or not holds(sites.orbit_sizes):
        raise ValueError("the sites of the structure to start from cannot be kept: leave out the symmetry")
    return (sites,), ""


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
    crystal, n = _in_symmetric_form(seed.crystal), seed.crystal.num_atoms
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


def _in_symmetric_form(crystal: Crystal) -> Crystal:
    return crystal.replace(lattice=symmetric_form(torch.tensor(crystal.lattice)).numpy())
