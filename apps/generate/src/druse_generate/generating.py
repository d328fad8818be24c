"""Draw crystals from a checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.batch import size_buckets
from druse_diffusion import NUM_CLASSES, Conditions, Prediction, RandomStreams, sample
from druse_scores import Checkpoint

from druse_generate.config import GenerateConfig

_SIZES = 1 << 31  # added to the index of a crystal, so that sizes and noise use different numbers


class TrainedElements:
    """A network that never proposes an element which none of its training crystals held."""

    def __init__(self, checkpoint: Checkpoint):
        self.network = checkpoint.network
        self.unknown = torch.ones(NUM_CLASSES, dtype=torch.bool)
        self.unknown[torch.tensor(checkpoint.elements) - 1] = False

    def __call__(self, noisy: CrystalBatch, t: torch.Tensor, conditions: Conditions | None = None) -> Prediction:
        """Scores of the network, logits without the unknown elements."""
        prediction = self.network(noisy, t, conditions)
        unknown = self.unknown.to(prediction.species_logits.device)
        return replace(prediction, species_logits=prediction.species_logits.masked_fill(unknown, -torch.inf))


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


def allowed_sizes(checkpoint: Checkpoint, config: GenerateConfig) -> np.ndarray:
    """Numbers of atoms that a crystal may have: those of the training data within the bounds, rising.

    Raises:
        ValueError: if the bounds leave those of the training data, or lie between two of them.
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
    return np.array(allowed)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def draw_sizes(checkpoint: Checkpoint, config: GenerateConfig, indices: Sequence[int]) -> np.ndarray:
    """Number of atoms of each crystal, from the training distribution within the bounds.

    Raises:
        ValueError: if no training crystal has a number of atoms within the bounds.
    """
    allowed = allowed_sizes(checkpoint, config)
    weights = np.array([checkpoint.num_atoms[n] for n in allowed], dtype=float)
    streams = RandomStreams(config.seed, torch.tensor(indices) + _SIZES)
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

    A crystal depends on the seed, its index, the checkpoint and the sampler, and, up to rounding, not on the batch.

    Args:
        checkpoint: the model.
        config: what to draw.
        skip: indices that are there already.
        on_progress: called after every step with the number of crystals done, a fraction for those under way.

    Raises:
        ValueError: if the model does not know the numbers of atoms asked for.
    """
    indices = np.array([i for i in range(config.num) if i not in skip], dtype=np.int64)
    sizes = draw_sizes(checkpoint, config, indices.tolist()) if len(indices) else np.empty(0, int)
    process, times = config.sampler.process, config.sampler.times
    model = TrainedElements(checkpoint)
    device = next(checkpoint.network.parameters()).device
    done = 0
    for batch in size_buckets(sizes, pair_budget=config.batch_pairs):
        num_atoms = torch.tensor(sizes[batch], device=device)
        total = int(num_atoms.sum())
        template = CrystalBatch(
            lattice=torch.eye(3, device=device).expand(len(batch), 3, 3),
            frac_coords=torch.zeros(total, 3, device=device),
            atomic_numbers=torch.ones(total, dtype=torch.long, device=device),
            num_atoms=num_atoms,
        )

        def tell(step: int, _: CrystalBatch, size: int = len(batch), done: int = done) -> None:
            if on_progress is not None:
                on_progress(done + size * (step + 1) / (len(times) - 1))

        drawn = sample(
            process,
            model,
            template,
            times=times,
            n_corrector_steps=config.sampler.corrector_steps,
            generator=RandomStreams(config.seed, torch.tensor(indices[batch]), device=device),
            on_step=tell,
        )
        done += len(batch)
        yield [_as_draw(int(indices[i]), drawn.select([row])) for row, i in enumerate(batch)]


def _as_draw(index: int, one: CrystalBatch) -> Draw:
    try:
        return Draw(index=index, crystal=one.to_crystals()[0])
    except ValueError as error:
        return Draw(index=index, crystal=None, message=str(error))
