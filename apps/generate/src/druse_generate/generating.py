"""Draw crystals from a checkpoint."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.batch import size_buckets
from druse_diffusion import AbsorbingD3PM, CrystalProcess, Fixed, RandomStreams, ReverseProcess, ScoreModel, sample
from druse_guidance import (
    CountedSpecies,
    KnownParts,
    Reward,
    RewardGradient,
    SteeredProcess,
    SymmetricProcess,
    first_atoms,
)
from druse_guidance.targets import conditions_of

from druse_generate.config import GenerateConfig
from druse_generate.planning import Plan, Wishes

_PARTICLE = 1 << 34  # added to the index of a crystal, so that each particle has numbers of its own

_LOST = (
    "its cell grew beyond all numbers or collapsed on the way, as with an untrained network: take a trained one, or a "
    "sampler with more steps"
)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One crystal that was asked for.

    Attributes:
        index: its number in the run; together with the seed it decides the crystal.
        crystal: None when the network's output is no crystal.
        message: why not.
        reward: of steering; None where there was none, or the crystal has none.
        rewards: how many were asked for on the way to this crystal.
        gradients: of the reward, the same.
    """

    index: int
    crystal: Crystal | None
    message: str = ""
    reward: float | None = None
    rewards: int = 0
    gradients: int = 0


def generate(
    wishes: Wishes,
    indices: Sequence[int],
    *,
    finished: Container[int] = (),
    reward: Reward | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[list[Draw]]:
    """Draw crystals; each batch is yielded as soon as it is ready.

    A crystal depends on the seed, its index, the model, the sampler and what was asked for, and, up to rounding, not on
    the batch; with the published sampler also on the others of its batch (``SamplerConfig.by_batch``).

    Args:
        wishes: what to draw, and the model that draws it (``checking.check``).
        indices: numbers of the crystals in the run, each once; all that belong to it, where crystals depend on their
            batch.
        finished: of these the crystals that are there already; batches in which all are are not drawn.
        reward: that ``config.steering`` steers by.
        on_progress: called after every step with the number of crystals done, a fraction for those under way.
    """
    config, device = wishes.config, wishes.device
    times = sampling_times(wishes)
    plans = wishes.plans(indices)
    particles = 1 if reward is None else config.steering.particles
    done, sizes = 0, np.array([plan.num_atoms for plan in plans], dtype=int)
    for bucket in size_buckets(sizes, pair_budget=max(1, config.batch_pairs // particles)):
        asked = [plans[i] for i in bucket]
        if all(plan.index in finished for plan in asked):
            continue
        batch = [plan for plan in asked for _ in range(particles)]
        streams = torch.tensor([plan.index + k * _PARTICLE for plan in asked for k in range(particles)])

        def on_step(step: int, _: CrystalBatch, before: int = done, size: int = len(asked)) -> None:
            if on_progress is not None:
                on_progress(before + size * (step + 1) / (len(times) - 1))

        process = restricted_process(wishes.process, batch, device=device)
        steered = None if reward is None else steered_process(process, config, reward)
        late = wishes.model if reward is None else late_gradient(wishes, reward)
        known = known_parts(late, wishes.process, batch, device=device)
        drawn = sample(
            process if steered is None else steered,
            late if known is None else known,
            _template(batch, device),
            times=times,
            n_corrector_steps=config.sampler.corrector_steps,
            conditions=conditions_of(wishes.targets, [plan.asked for plan in batch]).to(device),
            start=known.known if known is not None and times[0] < 1 else None,
            generator=RandomStreams(config.seed, streams, device=device),
            on_step=on_step,
        )
        drawn = drawn if known is None else known.restore(drawn)
        done += len(asked)
        rewards: list[float | None] = [None] * len(asked)
        evaluations = gradients = 0
        if steered is not None:
            best, found = steered.best(drawn)
            drawn = drawn.select(best)
            rewards[:], evaluations = found, steered.evaluations // len(asked)
            gradients = late.evaluations // len(asked) if isinstance(late, RewardGradient) else 0
        draws = [_as_draw(plan.index, drawn.select([i]), wishes) for i, plan in enumerate(asked)]
        asked_for = {"rewards": evaluations, "gradients": gradients}
        yield [replace(draw, reward=rewards[i], **asked_for) for i, draw in enumerate(draws)]


def restricted_process(process: CrystalProcess, plans: Sequence[Plan], *, device: torch.device) -> ReverseProcess:
    """The sampler's process, held to the species, the numbers of atoms and the sites of a batch of plans."""
    if any(plan.species is not None for plan in plans):
        return replace(process, species=Fixed())
    sites = [plan.sites for plan in plans if plan.sites is not None]
    bounds = [plan.bounds for plan in plans if plan.bounds is not None]
    if bounds:
        assert isinstance(process.species, AbsorbingD3PM)
        numbers = [np.where(p.known.keeps_species, p.known.atomic_numbers, 0) for p in plans if p.known is not None]
        species = CountedSpecies(
            species=process.species,
            bounds=bounds,
            orbit=first_atoms(sites, device=device) if sites else None,
            known=torch.tensor(np.concatenate(numbers), device=device) if numbers else None,
        )
        process = replace(process, species=species)
    return SymmetricProcess(process, sites, device=device) if sites else process


def known_parts(
    model: ScoreModel, process: CrystalProcess, plans: Sequence[Plan], *, device: torch.device
) -> KnownParts | None:
    """The model with what a batch of plans keeps of a structure; None where there is no structure."""
    known = [plan.known for plan in plans if plan.known is not None]
    if not known:
        return None

    def together(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(np.concatenate(arrays), dtype=dtype, device=device)

    return KnownParts(
        model=model,
        process=process,
        known=CrystalBatch(
            lattice=together([k.lattice[None] for k in known], torch.float32),
            frac_coords=together([k.frac_coords for k in known], torch.float32),
            atomic_numbers=together([k.atomic_numbers for k in known], torch.long),
            num_atoms=torch.tensor([plan.num_atoms for plan in plans], device=device),
        ),
        lattice=torch.tensor([k.keeps_lattice for k in known], device=device),
        frac_coords=together([k.keeps_coordinates for k in known], torch.bool),
        species=together([k.keeps_species for k in known], torch.bool),
    )


def sampling_times(wishes: Wishes) -> list[float]:
    """The sampler's grid of times, its beginning left out for variations of a structure."""
    times = wishes.config.sampler.times
    strength = None if wishes.seed is None else wishes.seed.strength
    if strength is None or strength == 1:
        return times
    return [strength, *(time for time in times if time < strength)]


def _template(plans: Sequence[Plan], device: torch.device) -> CrystalBatch:
    total = sum(plan.num_atoms for plan in plans)
    given = [np.ones(plan.num_atoms, dtype=np.int64) if plan.species is None else plan.species for plan in plans]
    return CrystalBatch(
        lattice=torch.eye(3, device=device).expand(len(plans), 3, 3),
        frac_coords=torch.zeros(total, 3, device=device),
        atomic_numbers=torch.tensor(np.concatenate(given), device=device),
        num_atoms=torch.tensor([plan.num_atoms for plan in plans], device=device),
    )


def steered_process(process: ReverseProcess, config: GenerateConfig, reward: Reward) -> SteeredProcess:
    """The process with a choice among particles."""
    s = config.steering
    return SteeredProcess(process=process, reward=reward, particles=s.particles, strength=s.strength, times=s.times)


def late_gradient(wishes: Wishes, reward: Reward) -> ScoreModel:
    """The model with the gradient of a reward in the last part of the way, if that was asked for."""
    steering = wishes.config.steering
    if not steering.gradient_below:
        return wishes.model
    return RewardGradient(
        model=wishes.model,
        process=wishes.process,
        gradient=getattr(reward, "gradient"),  # noqa: B009  a reward need not have one
        strength=steering.strength,
        below=steering.gradient_below,
    )


def _as_draw(index: int, one: CrystalBatch, wishes: Wishes) -> Draw:
    if bool(one.frac_coords.isnan().any()):
        return Draw(index=index, crystal=None, message=_LOST)
    try:
        crystal = one.to_crystals()[0]
    except ValueError as error:
        return Draw(index=index, crystal=None, message=str(error))
    if wishes.seed is not None and wishes.seed.lattice:  # in the orientation in which it was given
        crystal = crystal.replace(lattice=wishes.seed.crystal.lattice)
    return Draw(index=index, crystal=crystal)
