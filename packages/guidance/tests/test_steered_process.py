"""Steering: particles approach the model's distribution times the potential, crystals do not mix, costs are counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import NUM_CLASSES, CrystalProcess, LatticeVP, Prediction, RandomStreams, uniform_times
from druse_diffusion import sample as draw
from druse_guidance import SteeredProcess

LATTICES = LatticeVP()
WIDTH = 0.2  # Å, of the lattices that the model knows; one atom, so that the prior lies near


def model(noisy, t, conditions=None):
    """Exact scores of cubic-ish lattices, normal around 3 Å; oxygen and lithium equally likely."""
    n = noisy.num_atoms
    mean = LATTICES.mean(3.0 * torch.eye(3).expand(len(n), 3, 3), t, n)
    std, m = LATTICES.std(t, n)[:, None, None], LATTICES.mean_coefficient(t)[:, None, None]
    logits = torch.full((len(noisy.frac_coords), NUM_CLASSES), -60.0)
    logits[:, [2, 7]] = 0.0
    return Prediction(
        lattice=-std * (noisy.lattice - mean) / (std**2 + (m * WIDTH) ** 2),
        frac_coords=torch.zeros_like(noisy.frac_coords),
        species_logits=logits,
    )


def template(size):
    n = torch.ones(size, dtype=torch.long)
    return CrystalBatch(
        lattice=torch.eye(3).expand(size, 3, 3), frac_coords=torch.zeros(size, 3), atomic_numbers=n, num_atoms=n
    )


def long_axis(crystals):
    return np.array([crystal.lattice[0, 0] for crystal in crystals])


def steered(reward, *, crystals=300, particles=16, strength=1.0, seed=0, model=model, **options):
    process = SteeredProcess(
        process=CrystalProcess(lattice=LATTICES), reward=reward, particles=particles, strength=strength, **options
    )
    size = crystals * particles
    drawn = draw(process, model, template(size), times=uniform_times(100), generator=RandomStreams(seed, range(size)))
    return process, drawn


def test_particles_approach_the_tilted_distribution():
    """A normal distribution of width w times exp(strength x) is the same one moved by strength w²."""
    strength = 4.0
    _, drawn = steered(long_axis, particles=32, strength=strength, times=(0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01))
    x = drawn.lattice[:, 0, 0]
    assert float(x.mean()) == pytest.approx(3.0 + strength * WIDTH**2, abs=0.04)
    assert float(x.std()) == pytest.approx(WIDTH, abs=0.04)
    other = drawn.lattice[:, 1, 1]  # what nobody asked for stays
    assert float(other.mean()) == pytest.approx(3.0, abs=0.04)


def test_discrete_fields_are_steered_too():
    def oxygen(crystals):
        return np.array([float((crystal.atomic_numbers == 8).sum()) for crystal in crystals])

    _, drawn = steered(oxygen, crystals=200, particles=8, strength=np.log(3.0), times=(0.02,))
    share = float((drawn.atomic_numbers == 8).float().mean())  # one to one becomes three to one
    assert share == pytest.approx(0.75, abs=0.05)


def test_crystals_do_not_mix_and_the_best_is_of_each():
    seen = []

    def reward(crystals):
        seen.append(len(crystals))
        return long_axis(crystals)

    process, drawn = steered(reward, crystals=5, particles=4, strength=3.0, times=(0.3, 0.1))
    assert seen == [20, 20]
    assert process.evaluations == 40
    best, rewards = process.best(drawn)
    assert process.evaluations == 60
    groups = drawn.lattice[:, 0, 0].reshape(5, 4)
    assert torch.equal(drawn.lattice[best, 0, 0], groups.amax(1))
    assert rewards == pytest.approx(groups.amax(1).tolist())
    _, alone = steered(long_axis, crystals=1, particles=4, strength=3.0, times=(0.3, 0.1))
    assert torch.allclose(alone.lattice, drawn.lattice[:4], atol=1e-5)


def test_what_has_no_reward_is_dropped():
    def reward(crystals):
        found = long_axis(crystals)
        return np.where(found < 3.0, np.nan, 0.0)

    _, drawn = steered(reward, crystals=100, particles=8, times=(0.05,))
    assert float((drawn.lattice[:, 0, 0] < 2.9).float().mean()) < 0.1


@pytest.mark.parametrize("none", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_none_and_worse_than_any(none):
    def reward(crystals):
        found = long_axis(crystals)
        return np.where(found < 3.0, none, -1e9 - found)

    process, drawn = steered(reward, crystals=50, particles=8, times=(0.05,))
    assert float((drawn.lattice[:, 0, 0] < 2.9).float().mean()) < 0.1
    best, rewards = process.best(drawn)
    assert bool((drawn.lattice[best, 0, 0] >= 3.0).all())
    assert max(rewards) < -1e9
    nothing, rewards = SteeredProcess(
        process=process.process, reward=lambda crystals: np.full(len(crystals), none), particles=8, strength=1.0
    ).best(drawn)
    assert nothing.tolist() == list(range(0, 400, 8))
    assert rewards == [None] * 50


def test_a_time_without_rewards_changes_nothing():
    """All go on, and the next rewards are compared with the last that there were."""
    times = (0.3, 0.2, 0.1)

    def asked(reward, times):
        calls = []

        def counting(crystals):
            calls.append(len(crystals))
            return reward(crystals, len(calls))

        return steered(counting, crystals=20, particles=4, strength=3.0, times=times)[1].lattice

    blind = asked(lambda crystals, call: long_axis(crystals) if call != 2 else np.full(len(crystals), np.nan), times)
    fewer = asked(lambda crystals, call: long_axis(crystals), (0.3, 0.1))
    assert torch.equal(blind, fewer)


def test_particles_given_up_on_the_way_are_replaced():
    """Every first particle explodes before the first choice, every second one after the last; one group is lost."""

    def wild(noisy, t, conditions=None):
        prediction = model(noisy, t)
        now, rows = float(t[0]), torch.arange(len(noisy))
        lost = ((rows % 4 == 0) & (0.6 < now < 0.7)) | ((rows % 4 == 1) & (now < 0.05)) | (rows < 4) & (now < 0.05)
        return replace(prediction, lattice=torch.where(lost[:, None, None], 1e30, prediction.lattice))

    seen = []

    def reward(crystals):
        seen.append(len(crystals))
        return long_axis(crystals)

    process, drawn = steered(reward, model=wild, crystals=5, particles=4, times=(0.5, 0.1))
    assert seen == [15, 20]  # those lost are copies of others from the first choice on
    assert drawn.frac_coords.isnan().all(1).tolist() == [True] * 4 + [False, True, False, False] * 4
    best, rewards = process.best(drawn)
    assert rewards[0] is None
    sound = drawn.lattice[4:, 0, 0].reshape(4, 4)[:, [0, 2, 3]].amax(1)
    assert rewards[1:] == pytest.approx(sound.tolist())
    assert torch.equal(drawn.lattice[best[1:], 0, 0], sound)


def test_what_is_no_crystal_is_no_best_where_nothing_has_a_reward():
    n = torch.full((4,), 1)
    drawn = CrystalBatch(
        lattice=3.0 * torch.eye(3).repeat(4, 1, 1),
        frac_coords=torch.tensor([torch.nan, 0.0, torch.nan, 0.0])[:, None].repeat(1, 3),
        atomic_numbers=n,
        num_atoms=n,
    )
    process = SteeredProcess(
        process=CrystalProcess(), reward=lambda crystals: np.full(len(crystals), np.nan), particles=2, strength=1.0
    )
    best, rewards = process.best(drawn)
    assert best.tolist() == [1, 3]
    assert rewards == [None, None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"particles": 1}, "at least 2"),
        ({"strength": 0.0}, "must be a positive number"),
        ({"times": ()}, "give some"),
        ({"times": (1.5,)}, "at most 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        steered(long_axis, crystals=1, **{"particles": 2} | options)


def test_a_batch_of_loose_particles_is_refused():
    process = SteeredProcess(process=CrystalProcess(), reward=long_axis, particles=4, strength=1.0)
    with pytest.raises(ValueError, match="groups of 4 particles"):
        draw(process, model, template(6), times=uniform_times(10), generator=RandomStreams(0, range(6)))
