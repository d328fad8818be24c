"""Draw crystals from a checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import load_embedded
from druse_crystal.site_symmetry import SiteSymmetry
from druse_diffusion import AbsorbingD3PM, RandomStreams, ReverseProcess, ScoreModel, sample
from druse_guidance import AllowedElements, CountedSpecies, RequiredElements, SymmetricProcess, first_atoms
from druse_scores import Checkpoint

from druse_generate.config import GenerateConfig
from druse_generate.known_sites import KnownSites

_SIZES = 1 << 31  # added to the index of a crystal, so that sizes and noise use different numbers


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One crystal that was asked for.

    Attributes:
        index: its number in the run; together with the seed it decides the crystal.
        crystal: None when the network's output is no crystal.
        message: why not.
    """

    index: int
    crystal: Crystal | None
    message: str = ""


def restricted_model(checkpoint: Checkpoint, config: GenerateConfig) -> ScoreModel:
    """The network, held to the elements that the request allows and led to those that have to occur.

    Raises:
        ValueError: for an element that no training crystal held, or too many at once.
    """
    allowed = config.composition.allowed(checkpoint.elements)
    model = AllowedElements(checkpoint.network, allowed, known=checkpoint.elements)
    return RequiredElements(model, required) if (required := config.composition.required) else model


def allowed_sizes(checkpoint: Checkpoint, config: GenerateConfig) -> np.ndarray:
    """Numbers of atoms that a crystal may have, rising: of the training data, within the bounds, for the composition.

    Raises:
        ValueError: if the bounds leave those of the training data, or lie between two of them, or no number is right
            for the composition.
    """
    sizes = sorted(checkpoint.num_atoms)
    low, high = config.num_atoms or (sizes[0], sizes[-1])
    if low < sizes[0] or high > sizes[-1]:
        raise ValueError(
            f"cells of {_range(low, high)} atoms were asked for, the model knows cells of "
            f"{_range(sizes[0], sizes[-1])} atoms: ask for a number or a range within these"
        )
    allowed = [n for n in sizes if low <= n <= high]
    if not allowed:
        raise ValueError(
            f"no crystal of the training data has {_range(low, high)} atoms: ask for a range with one of "
            f"{', '.join(map(str, sizes))}"
        )
    return np.array(config.composition.sizes(allowed))


@cache
def embedded_sites() -> KnownSites:
    """The arrangements of sites of the embedded crystals."""
    return KnownSites(load_embedded().crystals)


def allowed_sites(checkpoint: Checkpoint, config: GenerateConfig) -> list[SiteSymmetry]:
    """Arrangements of sites that a crystal may have, of known crystals; none if no symmetry was asked for.

    Raises:
        ValueError: if there is none that can hold the composition; says what there is.
    """
    if not config.symmetry.restricts:
        return []

    def holds(sites: SiteSymmetry) -> bool:
        bounds = config.composition.bounds(sites.num_atoms)
        return bounds is None or bounds.possible(sites.orbit_sizes)

    sizes = allowed_sizes(checkpoint, config).tolist()
    return embedded_sites().select(sizes, space_group=config.symmetry.space_group, accept=holds)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def draw_sizes(checkpoint: Checkpoint, config: GenerateConfig, indices: Sequence[int]) -> np.ndarray:
    """Number of atoms of each crystal, from the training distribution within the bounds.

    Args:
        checkpoint: the model.
        config: seed and bounds.
        indices: of the crystals.

    Raises:
        ValueError: if no training crystal has a number of atoms within the bounds.
    """
    allowed = allowed_sizes(checkpoint, config)
    weights = np.array([checkpoint.num_atoms[n] for n in allowed], dtype=float)
    return allowed[np.searchsorted(np.cumsum(weights / weights.sum())[:-1], _uniform(config, indices))]


def draw_sites(config: GenerateConfig, indices: Sequence[int], allowed: Sequence[SiteSymmetry]) -> list[SiteSymmetry]:
    """The arrangement of sites of each crystal, all known ones equally likely."""
    return [allowed[int(u * len(allowed))] for u in _uniform(config, indices)]


def _uniform(config: GenerateConfig, indices: Sequence[int]) -> np.ndarray:
    streams = RandomStreams(config.seed, torch.tensor(indices, dtype=torch.long) + _SIZES)
    return streams.crystal_uniform(1).squeeze(-1).double().numpy()


def generate(
    checkpoint: Checkpoint,
    config: GenerateConfig,
    *,
    skip: frozenset[int] = frozenset(),
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[list[Draw]]:
    """Draw ``config.num`` crystals; each batch is yielded as soon as it is ready.

    A crystal depends on the seed, its index, the checkpoint, the sampler and what was asked for, and, up to rounding,
    not on the batch.

    Args:
        checkpoint: the model.
        config: what to draw.
        skip: indices that are there already.
        on_progress: called after every step with the number of crystals done, a fraction for those under way.

    Raises:
        ValueError: if the model does not know the numbers of atoms or the elements asked for.
    """
    model = restricted_model(checkpoint, config)
    indices = np.array([i for i in range(config.num) if i not in skip], dtype=np.int64)
    if not len(indices):
        return
    if allowed := allowed_sites(checkpoint, config):
        sites = draw_sites(config, indices.tolist(), allowed)
        sizes = np.array([s.num_atoms for s in sites])
    else:
        sites, sizes = [], draw_sizes(checkpoint, config, indices.tolist())
    times = config.sampler.times
    device = next(checkpoint.network.parameters()).device
    done = 0
    for batch in size_buckets(sizes, pair_budget=config.batch_pairs):

        def on_step(step: int, _: CrystalBatch, before: int = done, size: int = len(batch)) -> None:
            if on_progress is not None:
                on_progress(before + size * (step + 1) / (len(times) - 1))

        here = [sites[i] for i in batch] if sites else []
        num_atoms = torch.tensor(sizes[batch], device=device)
        drawn = sample(
            restricted_process(config, sizes[batch].tolist(), here, device=device),
            model,
            _template(num_atoms),
            times=times,
            n_corrector_steps=config.sampler.corrector_steps,
            generator=RandomStreams(config.seed, torch.tensor(indices[batch]), device=device),
            on_step=on_step,
        )
        done += len(batch)
        yield [_as_draw(int(index), drawn.select([row])) for row, index in enumerate(indices[batch])]


def restricted_process(
    config: GenerateConfig, sizes: Sequence[int], sites: Sequence[SiteSymmetry], *, device: torch.device
) -> ReverseProcess:
    """The sampler's process, held to numbers of atoms and to sites.

    Args:
        config: what was asked for.
        sizes: number of atoms of each crystal of the batch.
        sites: of each crystal; none if no symmetry was asked for.
        device: where the batch is.
    """
    process = config.sampler.process
    bounds = [bound for n in sizes if (bound := config.composition.bounds(n)) is not None]
    if bounds:
        assert isinstance(process.species, AbsorbingD3PM)
        orbit = first_atoms(sites, device=device) if sites else None
        process = replace(process, species=CountedSpecies(species=process.species, bounds=bounds, orbit=orbit))
    return SymmetricProcess(process, sites, device=device) if sites else process


def _template(num_atoms: torch.Tensor) -> CrystalBatch:
    total, device = int(num_atoms.sum()), num_atoms.device
    return CrystalBatch(
        lattice=torch.eye(3, device=device).expand(len(num_atoms), 3, 3),
        frac_coords=torch.zeros(total, 3, device=device),
        atomic_numbers=torch.ones(total, dtype=torch.long, device=device),
        num_atoms=num_atoms,
    )


def _as_draw(index: int, one: CrystalBatch) -> Draw:
    try:
        return Draw(index=index, crystal=one.to_crystals()[0])
    except ValueError as error:
        return Draw(index=index, crystal=None, message=str(error))
