"""The sampler against distributions whose scores are known: it must draw from just these."""

import math
from dataclasses import dataclass

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import (
    NUM_CLASSES,
    Conditions,
    CrystalProcess,
    LatticeVP,
    Prediction,
    RandomStreams,
    ScoreModel,
    WrappedVE,
    fast_times,
    sample,
    uniform_times,
)
from druse_diffusion.coordinates import wrapped_normal_score

LATTICES, COORDS = LatticeVP(), WrappedVE()
LATTICE = torch.tensor([[4.5, 0.3, -0.2], [0.3, 3.5, 0.4], [-0.2, 0.4, 5.5]])
FRAC_COORDS = torch.tensor([[0.02, 0.3, 0.5], [0.6, 0.98, 0.1], [0.25, 0.75, 0.4]])
SPECIES = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.1, 0.9]])  # of each atom: probabilities of oxygen and of iron


@dataclass(frozen=True)
class Oracle:
    """The exact scores of crystals spread around one: normal lattices and coordinates, independent species.

    Attributes:
        coords_width: standard deviation of the fractional coordinates.
        lattice_width: standard deviation of the six entries of the lattice, Å.
    """

    coords_width: float
    lattice_width: float

    def __call__(self, noisy: CrystalBatch, t: torch.Tensor, conditions: Conditions | None = None) -> Prediction:
        b, n = len(noisy), noisy.num_atoms
        sigma = COORDS.sigma(t, n).repeat_interleave(n).unsqueeze(-1).double()
        width = (sigma**2 + self.coords_width**2).sqrt()
        coords = sigma * wrapped_normal_score(noisy.frac_coords.double() - FRAC_COORDS.double().repeat(b, 1), width)
        std = LATTICES.std(t, n)[:, None, None]
        m = LATTICES.mean_coefficient(t)[:, None, None]
        mean = LATTICES.mean(LATTICE.expand(b, 3, 3), t, n)
        lattice = -std * (noisy.lattice - mean) / (std**2 + (m * self.lattice_width) ** 2)
        logits = torch.full((len(noisy.frac_coords), NUM_CLASSES), -60.0)
        logits[:, [7, 25]] = SPECIES.log().repeat(b, 1)
        return Prediction(lattice=lattice, frac_coords=coords.float(), species_logits=logits)


def draw(oracle: ScoreModel, *, times: list[float], correctors: int, crystals: int = 400) -> CrystalBatch:
    n = torch.full((crystals,), len(FRAC_COORDS))
    template = CrystalBatch(
        lattice=torch.eye(3).expand(crystals, 3, 3),
        frac_coords=torch.zeros(int(n.sum()), 3),
        atomic_numbers=torch.ones(int(n.sum()), dtype=torch.long),
        num_atoms=n,
    )
    streams = RandomStreams(0, range(crystals))
    process = CrystalProcess(lattice=LATTICES, frac_coords=COORDS)
    return sample(process, oracle, template, times=times, n_corrector_steps=correctors, generator=streams)


@pytest.mark.parametrize("correctors", [0, 1])
@pytest.mark.parametrize("times", [uniform_times(100), fast_times(50)], ids=["uniform", "fast"])
def test_one_crystal_is_drawn_again_and_again(times, correctors):
    drawn = draw(Oracle(0.0, 0.0), times=times, correctors=correctors, crystals=50)
    difference = drawn.frac_coords - FRAC_COORDS.repeat(50, 1)
    assert (difference - difference.round()).abs().max() < 1e-4
    assert (drawn.lattice - LATTICE).abs().max() < 1e-3
    assert set(drawn.atomic_numbers.tolist()) == {8, 26}


@pytest.mark.parametrize("correctors", [0, 1])
def test_spread_crystals_come_back_with_their_spread(correctors):
    """Means to within five standard errors, widths with 4 % more for the length of the steps."""
    crystals, coords_width, lattice_width = 400, 0.06, 0.25
    drawn = draw(Oracle(coords_width, lattice_width), times=uniform_times(250), correctors=correctors)
    error = 5 / crystals**0.5

    difference = drawn.frac_coords - FRAC_COORDS.repeat(crystals, 1)
    difference = (difference - difference.round()).unflatten(0, (crystals, 3))
    assert (difference.mean(0) / coords_width).abs().max() < error
    assert abs((difference - difference.mean(0)).std() / coords_width - 1) < error / (2 * 9) ** 0.5 + 0.04

    entries = (drawn.lattice - LATTICE).flatten(1)[:, [0, 1, 2, 4, 5, 8]]
    assert (entries.mean(0) / lattice_width).abs().max() < error
    assert abs((entries - entries.mean(0)).std() / lattice_width - 1) < error / (2 * 6) ** 0.5 + 0.04
    correlations = torch.corrcoef(torch.cat([entries, difference.flatten(1)], 1).T) - torch.eye(15)
    assert correlations.abs().max() < error


@pytest.mark.parametrize("correctors", [0, 1])
def test_species_come_with_their_frequencies_whatever_the_steps(correctors):
    crystals = 8000
    drawn = draw(Oracle(0.1, 0.1), times=[1.0, 0.7, 0.4, 0.1, 0.0], correctors=correctors, crystals=crystals)
    assert set(drawn.atomic_numbers.tolist()) == {8, 26}
    iron = (drawn.atomic_numbers.unflatten(0, (crystals, 3)) == 26).double()
    for found, expected in zip(iron.mean(0).tolist(), SPECIES[:, 1].tolist(), strict=True):
        assert abs(found - expected) < 5 * math.sqrt(expected * (1 - expected) / crystals)
    assert (torch.corrcoef(iron.T) - torch.eye(3)).abs().max() < 5 / crystals**0.5


def test_times_must_fall_from_one_to_zero():
    for times in ([1.0], [1.0, 0.5], [0.9, 0.0], [1.0, 0.2, 0.4, 0.0]):
        with pytest.raises(ValueError, match="fall from 1 to 0"):
            draw(Oracle(0.0, 0.0), times=times, correctors=0, crystals=2)


def test_variations_stay_as_near_as_the_time_they_start_at():
    """Of crystals far apart, the way back from an early time leads to where it started, from a late one anywhere."""
    crystals = 200
    oracle = Oracle(0.2, 0.1)
    n = torch.full((crystals,), 3)
    start = CrystalBatch(
        lattice=LATTICE.expand(crystals, 3, 3),
        frac_coords=(FRAC_COORDS + 0.15).repeat(crystals, 1),
        atomic_numbers=torch.tensor([8, 26, 26]).repeat(crystals),
        num_atoms=n,
    )
    moved = []
    for time in (0.05, 0.5, 1.0):
        times = [time * (1 - i / 100) for i in range(100)] + [0.0]
        streams = RandomStreams(0, range(crystals))
        process = CrystalProcess(lattice=LATTICES, frac_coords=COORDS)
        drawn = sample(process, oracle, start, times=times, start=start, generator=streams)
        difference = drawn.frac_coords - start.frac_coords
        moved.append(float((difference - difference.round()).norm(dim=-1).mean()))
    assert moved[0] < 0.05 < moved[1] < moved[2]
    afresh = draw(oracle, times=uniform_times(100), correctors=0, crystals=crystals)
    difference = afresh.frac_coords - start.frac_coords
    assert abs(moved[2] - float((difference - difference.round()).norm(dim=-1).mean())) < 0.03


def test_a_start_may_be_noised_to_any_time_up_to_one():
    template = CrystalBatch(
        lattice=LATTICE[None],
        frac_coords=FRAC_COORDS,
        atomic_numbers=torch.tensor([8, 26, 8]),
        num_atoms=torch.tensor([3]),
    )
    for times in ([1.2, 0.0], [0.3, 0.4, 0.0], [0.3, 0.1]):
        with pytest.raises(ValueError, match="fall from 1 to 0"):
            sample(
                CrystalProcess(),
                Oracle(0.1, 0.1),
                template,
                times=times,
                start=template,
                generator=RandomStreams(0, range(1)),
            )


@pytest.mark.parametrize("wrong", [1e20, torch.inf, torch.nan, 1e9])
def test_a_cell_that_explodes_takes_no_other_with_it(wrong):
    """Crystals 1 and 4 get an answer that no cell survives, on the way once and all the time."""
    oracle = Oracle(0.05, 0.2)

    def misled(noisy, t, conditions=None):
        assert noisy.frac_coords.isfinite().all()
        assert noisy.lattice.isfinite().all()
        prediction = oracle(noisy, t)
        lattice = prediction.lattice.clone()
        lattice[1] = wrong if float(t[0]) < 0.5 else lattice[1]
        lattice[4] = wrong
        return Prediction(lattice=lattice, frac_coords=prediction.frac_coords, species_logits=prediction.species_logits)

    kept, broken = (draw(model, times=fast_times(20), correctors=1, crystals=6) for model in (oracle, misled))
    lost = broken.frac_coords.isnan().view(6, 3, 3).all(-1).all(-1)
    assert lost.tolist() == [False, True, False, False, True, False]
    assert torch.equal(broken.lattice[~lost], kept.lattice[~lost])
    sound = ~lost.repeat_interleave(3)
    assert torch.equal(broken.frac_coords[sound], kept.frac_coords[sound])
    assert broken.lattice.isfinite().all()
