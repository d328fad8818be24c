"""Draw crystals from a checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.batch import size_buckets
from druse_diffusion import RandomStreams, ScoreModel, sample
from druse_guidance import AllowedElements, RequiredElements
from druse_scores import Checkpoint

from druse_generate.config import GenerateConfig

_SIZES = 1 << 31  # added to the index of a crystal, so that sizes and noise use different numbers
_REPEAT = 1 << 32  # added for every draw before, so that each has numbers of its own


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One crystal that was asked for.

    Attributes:
        index: its number in the run; together with the seed it decides the crystal.
        crystal: None when the network's output is no crystal, or never held all elements asked for.
        message: why not.
        draws: how many crystals were drawn for it; more than one only for a chemical system.
    """

    index: int
    crystal: Crystal | None
    message: str = ""
    draws: int = 1


def restricted_model(checkpoint: Checkpoint, config: GenerateConfig) -> ScoreModel:
    """The network, held to the elements that the request allows and led to those that have to occur.

    Raises:
        ValueError: for an element that no training crystal held, or too many at once.
    """
    allowed = checkpoint.elements if config.allowed is None else config.allowed
    model = AllowedElements(checkpoint.network, allowed, known=checkpoint.elements)
    return RequiredElements(model, config.required) if config.required else model


def allowed_sizes(checkpoint: Checkpoint, config: GenerateConfig) -> np.ndarray:
    """Numbers of atoms that a crystal may have, rising: of the training data, within the bounds, enough for a system.

    Raises:
        ValueError: if the bounds leave those of the training data, or lie between two of them, or no number is enough
            for the elements that must occur.
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
    if allowed[-1] < (needed := len(config.required)):
        raise ValueError(
            f"a crystal of {config.chemical_system} has at least {needed} atoms, and at most {allowed[-1]} were asked "
            "for: allow more atoms or ask for fewer elements"
        )
    return np.array([n for n in allowed if n >= needed])


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def draw_sizes(
    checkpoint: Checkpoint, config: GenerateConfig, indices: Sequence[int], *, repeat: int = 0
) -> np.ndarray:
    """Number of atoms of each crystal, from the training distribution within the bounds.

    Args:
        checkpoint: the model.
        config: seed and bounds.
        indices: of the crystals.
        repeat: how often each was drawn before.

    Raises:
        ValueError: if no training crystal has a number of atoms within the bounds.
    """
    allowed = allowed_sizes(checkpoint, config)
    weights = np.array([checkpoint.num_atoms[n] for n in allowed], dtype=float)
    streams = RandomStreams(config.seed, torch.tensor(indices) + _SIZES + repeat * _REPEAT)
    uniform = streams.crystal_uniform(1).squeeze(-1).double().numpy()
    return allowed[np.searchsorted(np.cumsum(weights / weights.sum())[:-1], uniform)]


def generate(
    checkpoint: Checkpoint,
    config: GenerateConfig,
    *,
    skip: frozenset[int] = frozenset(),
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[list[Draw]]:
    """Draw ``config.num`` crystals; each batch is yielded as soon as it is ready.

    A crystal depends on the seed, its index, the checkpoint, the sampler and the elements asked for, and, up to
    rounding, not on the batch. One that lacks an element of the chemical system is drawn again, number of atoms and
    all, from other random numbers.

    Args:
        checkpoint: the model.
        config: what to draw.
        skip: indices that are there already.
        on_progress: called after every step with the number of crystals done, a fraction for those under way.

    Raises:
        ValueError: if the model does not know the numbers of atoms or the elements asked for.
    """
    model = restricted_model(checkpoint, config)
    waiting = np.array([i for i in range(config.num) if i not in skip], dtype=np.int64)
    done = 0

    def tell(fraction: float) -> None:
        if on_progress is not None:
            on_progress(done + fraction)

    for repeat in range(config.max_draws):
        missing: list[int] = []
        for indices, drawn in _batches(checkpoint, model, config, waiting, repeat, tell):
            draws = [_as_draw(int(index), drawn.select([row]), draws=repeat + 1) for row, index in enumerate(indices)]
            if repeat + 1 < config.max_draws:
                missing += [draw.index for draw in draws if not _complete(draw, config)]
                draws = [draw for draw in draws if _complete(draw, config)]
            else:
                draws = [draw if _complete(draw, config) else _given_up(draw, config) for draw in draws]
            done += len(draws)
            tell(0)
            if draws:
                yield draws
        waiting = np.array(sorted(missing), dtype=np.int64)
        if not len(waiting):
            return


def _batches(
    checkpoint: Checkpoint,
    model: ScoreModel,
    config: GenerateConfig,
    indices: np.ndarray,
    repeat: int,
    tell: Callable[[float], None],
) -> Iterator[tuple[np.ndarray, CrystalBatch]]:
    """Indices and crystals, one batch after the other."""
    sizes = draw_sizes(checkpoint, config, indices.tolist(), repeat=repeat) if len(indices) else np.empty(0, int)
    times = config.sampler.times
    device = next(checkpoint.network.parameters()).device
    for batch in size_buckets(sizes, pair_budget=config.batch_pairs):
        num_atoms = torch.tensor(sizes[batch], device=device)
        total = int(num_atoms.sum())
        template = CrystalBatch(
            lattice=torch.eye(3, device=device).expand(len(batch), 3, 3),
            frac_coords=torch.zeros(total, 3, device=device),
            atomic_numbers=torch.ones(total, dtype=torch.long, device=device),
            num_atoms=num_atoms,
        )

        def on_step(step: int, _: CrystalBatch, size: int = len(batch)) -> None:
            if not config.required:  # nobody knows how many of these will be kept
                tell(size * (step + 1) / (len(times) - 1))

        streams = torch.tensor(indices[batch]) + repeat * _REPEAT
        yield (
            indices[batch],
            sample(
                config.sampler.process,
                model,
                template,
                times=times,
                n_corrector_steps=config.sampler.corrector_steps,
                generator=RandomStreams(config.seed, streams, device=device),
                on_step=on_step,
            ),
        )


def _as_draw(index: int, one: CrystalBatch, *, draws: int) -> Draw:
    try:
        return Draw(index=index, crystal=one.to_crystals()[0], draws=draws)
    except ValueError as error:
        return Draw(index=index, crystal=None, message=str(error), draws=draws)


def _complete(draw: Draw, config: GenerateConfig) -> bool:
    """Whether nothing is missing that drawing again could bring."""
    if not config.required:
        return True
    return draw.crystal is not None and set(config.required) <= set(draw.crystal.atomic_numbers.tolist())


def _given_up(draw: Draw, config: GenerateConfig) -> Draw:
    sentence = f"none of {draw.draws} draws holds all of {config.chemical_system}"
    return replace(draw, crystal=None, message=sentence)
