"""Gradients of rewards: the distribution that comes out is the model's times the potential, late times only."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import (
    NUM_CLASSES,
    CrystalProcess,
    Fixed,
    LatticeVP,
    Prediction,
    RandomStreams,
    WrappedVE,
    uniform_times,
)
from druse_diffusion import sample as draw
from druse_diffusion.coordinates import wrapped_normal_score
from druse_guidance import Pull, RewardGradient

LATTICES, COORDS = LatticeVP(), WrappedVE()
EDGE, LATTICE_WIDTH, COORDS_WIDTH = 4.0, 0.15, 0.03
LATE = 0.4  # the noise of the coordinates does not reach around the cell any more


def model(noisy, t, conditions=None):
    """Exact scores: cubic lattices of some spread, two atoms spread around (0, 0, 0) and (0.5, 0.5, 0.5)."""
    n = noisy.num_atoms
    mean = LATTICES.mean(EDGE * torch.eye(3).expand(len(n), 3, 3), t, n)
    std, m = LATTICES.std(t, n)[:, None, None], LATTICES.mean_coefficient(t)[:, None, None]
    sigma = COORDS.sigma(t, n).repeat_interleave(n).unsqueeze(-1)
    places = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]).repeat(len(n), 1)
    width = (sigma**2 + COORDS_WIDTH**2).sqrt()
    return Prediction(
        lattice=-std * (noisy.lattice - mean) / (std**2 + (m * LATTICE_WIDTH) ** 2),
        frac_coords=sigma * wrapped_normal_score(noisy.frac_coords - places, width),
        species_logits=torch.zeros(len(noisy.frac_coords), NUM_CLASSES),
    )


def drawn(gradient, *, strength=1.0, below=LATE, crystals=400):
    n = torch.full((crystals,), 2)
    process = CrystalProcess(lattice=LATTICES, frac_coords=COORDS)
    pulled = RewardGradient(model=model, process=process, gradient=gradient, strength=strength, below=below)
    template = CrystalBatch(
        lattice=torch.eye(3).expand(crystals, 3, 3),
        frac_coords=torch.zeros(2 * crystals, 3),
        atomic_numbers=torch.full((2 * crystals,), 8),
        num_atoms=n,
    )
    streams = RandomStreams(0, range(crystals))
    return pulled, draw(process, pulled, template, times=uniform_times(150), generator=streams)


def expected_shift(steps, strength):
    """The mean of a linear reverse process of one number whose score gains ``strength`` at late times.

    ``steps(t, s)`` gives the factor of the deviation, and of the gain.
    """
    shift = 0.0
    for t, s in pairwise(uniform_times(150)):
        factor, gain = steps(t, s)
        shift = factor * shift + (gain * strength if t <= LATE else 0.0)
    return shift


def test_a_constant_force_on_the_second_atom_moves_it_as_the_equations_say():
    """By fractional coordinates the gradient of a force f along x is f a."""
    force = 2.0

    def gradient(crystals):
        on_atoms = torch.tensor([[0.0, 0, 0], [force, 0, 0]])
        return [Pull(on_atoms=on_atoms, on_strain=torch.zeros(3, 3)) for _ in crystals]

    def steps(t, s):
        before, after = (float(COORDS.sigma(torch.tensor([time]), torch.tensor([2]))) ** 2 for time in (t, s))
        return 1 - (before - after) / (COORDS_WIDTH**2 + before), before - after

    _, found = drawn(gradient)
    moved = found.frac_coords - torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]).repeat(400, 1)
    moved = (moved - moved.round()).unflatten(0, (400, 2)).mean(0)
    assert float(moved[1, 0]) == pytest.approx(expected_shift(steps, force * EDGE), rel=0.15)
    assert moved.flatten()[[0, 1, 2, 4, 5]].abs().max() < 5 * COORDS_WIDTH / 400**0.5


def test_a_pressure_changes_the_lattice_as_the_equations_say():
    """The reward p V has the gradient p V by strain and p a² by the edge a of a cube."""
    pressure = 0.1

    def gradient(crystals):
        zeros = torch.zeros(2, 3)
        return [Pull(on_atoms=zeros, on_strain=pressure * crystal.volume * torch.eye(3)) for crystal in crystals]

    def steps(t, s):
        n, (t, s) = torch.tensor([2]), (torch.tensor([time]) for time in (t, s))
        m, earlier = LATTICES.mean_coefficient(t), LATTICES.mean_coefficient(s)
        a, variance = float((m / earlier).clamp(min=1e-3)), float(LATTICES.prior_variance(n))
        gain = variance * (1 - a**2) / a
        return 1 / a - gain / float(LATTICES.std(t, n) ** 2 + (m * LATTICE_WIDTH) ** 2), gain

    _, found = drawn(gradient)
    diagonal = found.lattice.diagonal(dim1=-2, dim2=-1)
    assert float(diagonal.mean()) - EDGE == pytest.approx(expected_shift(steps, pressure * EDGE**2), rel=0.15)
    assert found.lattice[:, 0, 1].mean().abs() < 0.03


def test_nothing_happens_early_or_where_there_is_no_gradient():
    seen = []

    def gradient(crystals):
        seen.append(len(crystals))
        return [None] * len(crystals)

    pulled, found = drawn(gradient, below=0.1, crystals=8)
    assert len(seen) == 15  # of 150 even steps those that begin at 0.1 and below
    assert pulled.evaluations == sum(seen) == 15 * 8
    n = torch.full((8,), 2)
    template = found.replace(frac_coords=torch.zeros(16, 3))
    plain = draw(
        CrystalProcess(lattice=LATTICES, frac_coords=COORDS),
        model,
        template.replace(num_atoms=n),
        times=uniform_times(150),
        generator=RandomStreams(0, range(8)),
    )
    assert torch.equal(plain.lattice, found.lattice)
    assert np.allclose(plain.frac_coords, found.frac_coords)


def test_a_gradient_that_is_not_finite_is_none():
    def gradient(crystals):
        return [Pull(on_atoms=torch.full((2, 3), torch.nan), on_strain=torch.zeros(3, 3)) for _ in crystals]

    _, found = drawn(gradient, below=0.1, crystals=4)
    _, plain = drawn(lambda crystals: [None] * len(crystals), below=0.1, crystals=4)
    assert torch.equal(found.frac_coords, plain.frac_coords)
    assert torch.equal(found.lattice, plain.lattice)


def failing(crystals):
    raise RuntimeError("no luck")


ATOMS, STRAIN = torch.zeros(2, 3), torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("gradient", "words"),
    [
        (failing, r"failed \(RuntimeError: no luck\): correct it"),
        (lambda crystals: 1.0, r"failed \(TypeError"),
        (lambda crystals: [1.0 for _ in crystals], "gave a float: give a Pull or None"),
        (lambda crystals: [None], "gave 1 results for 3 crystals: give one for each"),
        (
            lambda crystals: [Pull(on_atoms=torch.zeros(3, 3), on_strain=STRAIN) for _ in crystals],
            r"on_atoms of the gradient to steer by has shape \(3, 3\) for a crystal of 2 atoms: give \(2, 3\)",
        ),
        (lambda crystals: [unchecked(np.zeros((2, 3)), STRAIN) for _ in crystals], "on_atoms .* is a ndarray: give a"),
        (lambda crystals: [unchecked(ATOMS, torch.zeros(3)) for _ in crystals], r"on_strain .* has shape \(3,\)"),
    ],
)
def test_a_gradient_that_is_wrong_is_one_sentence(gradient, words):
    with pytest.raises(ValueError, match=words):
        drawn(gradient, below=0.1, crystals=3)


def unchecked(on_atoms, on_strain):
    """A pull as it can come where nothing checks types, which is everywhere but in tests."""
    pull = Pull(on_atoms=ATOMS, on_strain=STRAIN)
    object.__setattr__(pull, "on_atoms", on_atoms)
    object.__setattr__(pull, "on_strain", on_strain)
    return pull


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": -1.0}, "must be a positive number"),
        ({"below": 0.0}, "above 0 and at most 1"),
        ({"process": CrystalProcess(lattice=Fixed())}, "that are noised"),
    ],
)
def test_bad_options(options, words):
    settings = {"model": model, "process": CrystalProcess(), "gradient": lambda crystals: [], "strength": 1.0}
    with pytest.raises(ValueError, match=words):
        RewardGradient(**settings | options)
