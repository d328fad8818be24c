"""Can a model do what is asked of it?"""

from collections.abc import Iterator, Mapping, Sequence

from ase.data import chemical_symbols
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry
from druse_diffusion import ScoreModel
from druse_guidance import (
    AdaptedNetwork,
    Adapter,
    AllowedElements,
    ClassifierFreeGuidance,
    PublishedElements,
    RequiredElements,
    Target,
    own_properties,
)
from druse_scores import Checkpoint, PairNetwork, has_bfloat16

from druse_generate.config import GenerateConfig, SamplerConfig
from druse_generate.contradictions import refuse_contradictions, sizes_for
from druse_generate.known_crystal import in_symmetric_form
from druse_generate.planning import Wishes, bounds_of
from druse_generate.property_request import properties_of
from druse_generate.seed_request import Seed
from druse_generate.site_choice import choose_sites, embedded_sites


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
    assumed = "assumed" in checkpoint.provenance
    if unknown and assumed:
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
    known = _known_sizes(checkpoint, config, seed)
    try:
        sizes = _sizes(known, config, seed, allowed)
    except ValueError as error:
        if not assumed or config.num_atoms is not None:
            raise
        raise ValueError(
            f"{error}; nobody said at its import which sizes the model knows, those of Alex-MP-20 are assumed: ask for "
            "others by --num-atoms, or import the model with --data"
        ) from error
    if seed is None:
        sizes = sizes_for(targets, sizes, holds=lambda orbits: _holds(config, orbits, allowed))
    if checkpoint.given_species:
        sizes = _sizes_of_given_species(config, sizes, allowed)
    weights = _weights(checkpoint, config, sizes, targets)
    weighed = dict(zip(sizes, weights, strict=True))
    fewest = max((len(target.elements) for target in targets), default=0)
    sites, sites_warning = _sites(known, config, seed, weighed, allowed, fewest_orbits=fewest)
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
                _beyond_known(checkpoint, sizes),
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
        process=config.sampler.process(density=checkpoint.density),
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


def _known_sizes(checkpoint: Checkpoint, config: GenerateConfig, seed: Seed | None) -> list[int]:
    """Numbers of atoms that the model draws, rising: where they are only assumed, also those that were asked for."""
    known = {*checkpoint.num_atoms}
    if "assumed" in checkpoint.provenance:
        if config.num_atoms is not None:
            known |= {*range(config.num_atoms[0], config.num_atoms[1] + 1)}
        elif seed is not None:
            known.add(seed.crystal.num_atoms)
    return sorted(known)


def _beyond_known(checkpoint: Checkpoint, sizes: Sequence[int]) -> str:
    """A sentence on cells larger than those that the model is assumed to know; empty if there are none."""
    if max(sizes) <= max(checkpoint.num_atoms):
        return ""
    return (
        f"cells of {max(sizes)} atoms were asked for, and whether the model has learnt cells of more than "
        f"{max(checkpoint.num_atoms)} atoms nobody said at its import"
    )


def _sizes(known: Sequence[int], config: GenerateConfig, seed: Seed | None, allowed: Sequence[int]) -> tuple[int, ...]:
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
    """How often each number of atoms comes: as in training, or as in known crystals of a space group asked for.

    The published sampler, which is a comparison, has them as in training.
    """
    asked = [int(target.low) for target in targets if target.property.kind == "space_group"]
    as_trained = config.sampler.grid == "published" or config.symmetry.restricts or config.seed_structure.restricts
    if asked and not as_trained:
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


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _holds(config: GenerateConfig, orbit_sizes: Sequence[int], allowed: Sequence[int]) -> bool:
    """Whether orbits of these sizes, each of one element, can hold the composition asked for."""
    bounds = bounds_of(config, sum(orbit_sizes), allowed)
    return bounds is None or bounds.possible(orbit_sizes)


def _sites(
    known: Sequence[int],
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
        return choose_sites(config.symmetry, sizes, accept=None if free else holds, known=known, seed=config.seed)
    sites = find_site_symmetry(in_symmetric_form(seed.crystal))
    if sites is None or not holds(sites.orbit_sizes):
        raise ValueError("the sites of the structure to start from cannot be kept: leave out the symmetry")
    return (sites,), ""
