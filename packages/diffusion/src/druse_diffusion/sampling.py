"""Run the process backwards: from noise to crystals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from druse_crystal import CrystalBatch
from jaxtyping import Bool, Float
from torch import Tensor

from druse_diffusion.process import ReverseProcess
from druse_diffusion.random import RandomStreams
from druse_diffusion.score import Conditions, Prediction, ScoreModel

_LARGEST = 1e6  # Å; no entry of a cell comes near it unless the cell is on its way to infinity


def uniform_times(n_steps: int) -> list[float]:
    """The published grid: ``n_steps`` even steps from 1 to 0. With 1,000 steps and one corrector it is MatterGen's."""
    return [1 - i / n_steps for i in range(n_steps)] + [0.0]


def fast_times(n_steps: int) -> list[float]:
    """A grid for few steps: three fifths of them between t = 0.6 and 0.2, where a structure takes shape.

    Above, coordinates are noise in a cell that is still forming; below, atoms settle into the sites they have found.
    """
    early = max(1, n_steps // 5)
    middle = max(0, n_steps - 2 * early)
    late = n_steps - early - middle
    parts = ((1.0, 0.6, early), (0.6, 0.2, middle), (0.2, 0.0, late))
    return [start + (stop - start) * i / n for start, stop, n in parts for i in range(n)] + [0.0]


@torch.no_grad()
def sample(
    process: ReverseProcess,
    model: ScoreModel,
    template: CrystalBatch,
    *,
    times: Sequence[float],
    n_corrector_steps: int = 0,
    conditions: Conditions | None = None,
    start: CrystalBatch | None = None,
    generator: RandomStreams,
    on_step: Callable[[int, CrystalBatch], None] | None = None,
) -> CrystalBatch:
    """Draw crystals by predictor-corrector sampling (MatterGen, arXiv:2312.03687, appendix A.6).

    At each time of the grid the corrector runs ``n_corrector_steps`` times, then the predictor takes the crystals to
    the next time; each of these asks the network once.

    Args:
        process: the process that the network was trained for, or any wrapper of it.
        model: the network, or any wrapper of it.
        template: gives the numbers of atoms, and the values of ``Fixed`` fields.
        times: falling from 1 to 0; with ``start`` from any time to 0.
        n_corrector_steps: Langevin steps before each predictor step.
        conditions: what the crystals shall be.
        start: crystals of which variations are drawn: they are noised up to the first time, and the way back begins
            there. The earlier it is, the nearer the variations. None: from noise alone.
        generator: one random stream for each crystal.
        on_step: called after each predictor step with its number and the crystals so far.

    Returns:
        the crystals at the last time. One whose cell grew beyond all numbers or collapsed on the way, as happens with
        networks that are not trained, has NaN for coordinates; the others do not notice.

    Raises:
        ValueError: if the times do not fall from 1 (with ``start`` from a time above 0 and at most 1) to 0.
    """
    falling = len(times) >= 2 and times[-1] == 0.0 and all(s < t for t, s in pairwise(times))
    if not falling or times[0] > 1 or (start is None and times[0] != 1):
        raise ValueError("times must fall from 1 to 0")

    def moment(value: float) -> torch.Tensor:
        return torch.full((len(template),), value, dtype=template.lattice.dtype, device=template.device)

    if start is None:
        x = process.prior(template, generator=generator)
    else:
        x = process.corrupt(start, moment(times[0]), generator=generator)

    for step, (now, then) in enumerate(pairwise(times)):
        t, s = moment(now), moment(then)
        for _ in range(n_corrector_steps):
            prediction, x = _predict(model, x, t, conditions)
            x = process.correct(prediction, x, t, generator=generator)
        prediction, x = _predict(model, x, t, conditions)
        x = process.denoise(prediction, x, t, s, generator=generator)
        if on_step is not None:
            on_step(step, x)
    return _given_up(x)


def _predict(
    model: ScoreModel, x: CrystalBatch, t: Float[Tensor, " b"], conditions: Conditions | None
) -> tuple[Prediction, CrystalBatch]:
    """What the model says of crystals, and the crystals, those given up whose cells are none or are to become none."""
    x = _given_up(x)
    lost = x.frac_coords.isnan()
    if bool(lost.any()):  # something that a network can look at
        spread = torch.linspace(0, 1, len(lost) + 1, dtype=x.frac_coords.dtype, device=x.device)[:-1, None]
        prediction = model(x.replace(frac_coords=torch.where(lost, spread, x.frac_coords)), t, conditions)
    else:
        prediction = model(x, t, conditions)
    sound = (prediction.lattice.abs() < _LARGEST**2).flatten(1).all(1)
    if bool(sound.all()):
        return prediction, x
    step = torch.where(sound[:, None, None], prediction.lattice, 0.0)
    return replace(prediction, lattice=step), _marked(x, ~sound)


def _given_up(x: CrystalBatch) -> CrystalBatch:
    """The crystals, those whose cell is none marked, and some cell for all that are."""
    inverse, _ = torch.linalg.inv_ex(x.lattice)
    sound = ((x.lattice.abs() < _LARGEST) & inverse.isfinite()).flatten(1).all(1)
    broken = ~x.frac_coords.isfinite().all(-1)
    if bool(sound.all()) and not bool(broken.any()):
        return x
    lost = (~sound).index_fill(0, x.crystal_index[broken], True)
    some = torch.eye(3, dtype=x.lattice.dtype, device=x.device) * (20.0 * x.num_atoms[:, None, None]) ** (1 / 3)
    return _marked(x.replace(lattice=torch.where(lost[:, None, None], some, x.lattice)), lost)


def _marked(x: CrystalBatch, lost: Bool[Tensor, " b"]) -> CrystalBatch:
    """The crystals, with NaN for the coordinates of those that are lost."""
    return x.replace(frac_coords=x.frac_coords.masked_fill(lost[x.crystal_index][:, None], torch.nan))
