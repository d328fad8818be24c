"""Every shipped corruption keeps the contract, and equals the published code's numbers."""

import math
from itertools import pairwise

import pytest
import torch
from druse_crystal.lattice import symmetric_form
from druse_diffusion import (
    MASK,
    NUM_CLASSES,
    AbsorbingD3PM,
    CrystalProcess,
    Fixed,
    LatticeVP,
    RandomStreams,
    TimeDistribution,
    WrappedVE,
    fast_times,
)
from druse_diffusion.coordinates import wrapped_normal_score
from druse_diffusion.testing import check_corruption

NUM_ATOMS = torch.tensor([1, 4, 20, 3])


def test_wrapped_ve_keeps_the_contract():
    process = WrappedVE()
    x0 = torch.rand(28, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def oracle(x0, x_t, t, num_atoms):
        # the score of the unwrapped path: nearest image of the data
        sigma = process.sigma(t, num_atoms).repeat_interleave(num_atoms).unsqueeze(-1)
        d = x_t - x0
        return -(d - d.round()) / sigma

    # uniform on [0, 1): sigma at t = 1 is 1.8 cells and more
    check_corruption(process, x0, oracle, num_atoms=NUM_ATOMS, prior_moments=(0.5, 12**-0.5), periodic=True)


def test_lattice_vp_keeps_the_contract():
    process = LatticeVP()
    generator = torch.Generator().manual_seed(0)
    x0 = symmetric_form(4 * torch.eye(3) + torch.randn(4, 3, 3, generator=generator)).double()

    def oracle(x0, x_t, t, num_atoms):
        return -(x_t - process.mean(x0, t, num_atoms)) / process.std(t, num_atoms)[:, None, None]

    check_corruption(process, x0, oracle, num_atoms=NUM_ATOMS, tolerance=1e-3)
    n = torch.full((20000,), 10)
    prior = process.prior(n, generator=RandomStreams(0, range(20000)))
    assert torch.allclose(prior.mean(0), process.prior_mean(n)[0], atol=0.05)
    assert torch.allclose(prior.var(0), process.prior_variance(n)[0].expand(3, 3), rtol=0.05)
    assert torch.equal(prior, prior.mT)


def test_absorbing_d3pm_keeps_the_contract():
    x0 = torch.randint(1, 90, (28,), generator=torch.Generator().manual_seed(0))

    def oracle(x0, x_t, t, num_atoms):
        return 50.0 * torch.nn.functional.one_hot(x0 - 1, NUM_CLASSES).float()

    for process in (AbsorbingD3PM(), AbsorbingD3PM(remask=0.2)):
        check_corruption(process, x0, oracle, num_atoms=NUM_ATOMS)


@pytest.mark.parametrize("forgetful", [WrappedVE(sigma_max=0.1), LatticeVP(beta_max=2.0)])
def test_a_process_that_does_not_reach_its_prior_breaks_the_contract(forgetful):
    lattice = isinstance(forgetful, LatticeVP)
    x0 = 4 * torch.eye(3).expand(4, 3, 3) if lattice else torch.full((28, 3), 0.3)
    with pytest.raises(AssertionError, match="at t = 1 corrupt has another"):
        check_corruption(forgetful, x0, lambda *_: torch.zeros_like(x0), num_atoms=NUM_ATOMS, periodic=not lattice)


def test_species_are_revealed_at_the_rate_of_the_schedule():
    process, n = AbsorbingD3PM(), torch.tensor([20000])
    logits = torch.zeros(20000, NUM_CLASSES)
    logits[:, 7] = math.log(3.0) + 20
    logits[:, 25] = 20.0
    masked = process.prior(n, generator=RandomStreams(0, range(1)))
    x = process.denoise(
        logits, masked, torch.tensor([1.0]), torch.tensor([0.4]), n, generator=RandomStreams(1, range(1))
    )
    assert (x == MASK).float().mean() == pytest.approx(float(process.masked_probability(torch.tensor([0.4]))), abs=0.01)
    revealed = x[x != MASK]
    assert (revealed == 8).float().mean() == pytest.approx(0.75, abs=0.01)
    assert set(revealed.tolist()) == {8, 26}


def test_temperature_narrows_what_langevin_steps_draw():
    """A Langevin chain at temperature T draws from p^(1/T): a normal of width sigma becomes sqrt(T) as wide."""
    n, t = torch.ones(4000, dtype=torch.long), torch.full((4000,), 0.2)
    widths = {}
    for temperature in (1.0, 0.25):
        process = WrappedVE(temperature=temperature, snr=0.1)
        streams = RandomStreams(0, range(4000))
        sigma = process.sigma(t, n).unsqueeze(-1)
        x = process.corrupt(torch.full((4000, 3), 0.5), t, n, generator=streams)
        for _ in range(150):
            x = process.correct(sigma * wrapped_normal_score(x - 0.5, sigma), x, t, n, generator=streams)
        widths[temperature] = float((x - 0.5).std() / sigma[0])
    assert widths[1.0] == pytest.approx(1.0, abs=0.03)
    assert widths[0.25] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"temperature": 0.25}, 0.5),
        ({"temperature": 0.25, "cold_below": 0.5}, 0.5),
        ({"temperature": 0.25, "cold_below": 0.4}, 1.0),
    ],
)
def test_temperature_scales_the_variance_of_what_a_step_adds(settings, factor):
    n, t, s = torch.full((3000,), 2), torch.full((3000,), 0.5), torch.full((3000,), 0.45)
    for kind, x in (
        (WrappedVE, torch.full((6000, 3), 0.5)),
        (LatticeVP, 4 * torch.eye(3).expand(3000, 3, 3)),
    ):
        spread = {}
        for cooled, process in ((False, kind()), (True, kind(**settings))):
            for name, step in (("denoise", (t, s, n)), ("correct", (t, n))):
                y = getattr(process, name)(torch.zeros_like(x), x, *step, generator=RandomStreams(0, range(3000)))
                spread[name, cooled] = float((y - x).flatten(1)[:, 1].std())
        for name in ("denoise", "correct"):
            assert spread[name, True] == pytest.approx(factor * spread[name, False], rel=0.05), (kind, name)


def test_no_temperature_leaves_nothing_random_in_a_step():
    n, t, s = torch.tensor([3, 5]), torch.full((2,), 0.5), torch.full((2,), 0.4)
    for process, x in (
        (WrappedVE(temperature=0.0), torch.rand(8, 3, generator=torch.Generator().manual_seed(0))),
        (LatticeVP(temperature=0.0), 4 * torch.eye(3).expand(2, 3, 3)),
    ):
        prediction = 0.1 * torch.ones_like(x)
        steps = [process.denoise(prediction, x, t, s, n, generator=RandomStreams(i, range(2))) for i in range(2)]
        corrections = [process.correct(prediction, x, t, n, generator=RandomStreams(i, range(2))) for i in range(2)]
        assert torch.equal(*steps)
        assert torch.equal(*corrections)


@pytest.mark.parametrize("steps", [2, 3, 5, 25, 100, 333])
def test_times_for_few_steps_fall_from_one_to_zero(steps):
    times = fast_times(steps)
    assert len(times) == steps + 1
    assert times[0] == 1
    assert times[-1] == 0
    assert all(a > b for a, b in pairwise(times))
    middle = sum(0.6 >= t > 0.2 for t in times)
    assert steps < 25 or middle == pytest.approx(0.6 * steps, abs=2)


def test_focused_times_keep_their_shares():
    uniform = (torch.arange(10000) + 0.5) / 10000
    focused = TimeDistribution(focus=0.4, low=0.1, high=0.6).times(uniform)
    assert ((focused > 0.1) & (focused < 0.6)).float().mean() == pytest.approx(0.4 + 0.6 * 0.5, abs=1e-3)
    assert (focused < 0.05).float().mean() == pytest.approx(0.6 * 0.05, abs=1e-3)
    assert torch.allclose(TimeDistribution().times(uniform), uniform, atol=2e-5)
    with pytest.raises(ValueError, match="focus"):
        TimeDistribution(focus=1.0)
    with pytest.raises(ValueError, match="window"):
        TimeDistribution(low=0.6, high=0.1)


@pytest.mark.parametrize(("remask", "time"), [(0.1, 0.4), (0.2, 0.05), (1.0, 0.3), (1.0, 0.9)])
def test_remasking_keeps_the_distribution_at_constant_time(remask, time):
    process, n, t = AbsorbingD3PM(remask=remask), torch.ones(8000, dtype=torch.long), torch.full((8000,), time)
    logits = torch.full((8000, NUM_CLASSES), -50.0)
    logits[:, 7], logits[:, 25] = math.log(3.0), 0.0
    streams = RandomStreams(0, range(8000))
    data = torch.where(torch.rand(8000, generator=torch.Generator().manual_seed(0)) < 0.75, 8, 26)
    x = process.corrupt(data, t, n, generator=streams)
    for _ in range(20):
        x = process.correct(logits, x, t, n, generator=streams)
    assert (x == MASK).float().mean() == pytest.approx(float(process.masked_probability(t)[0]), abs=0.02)
    assert (x[x != MASK] == 8).float().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(AbsorbingD3PM().correct(logits, x, t, n, generator=streams), x)


def test_remasking_lets_atoms_change_their_elements_together():
    """Two atoms that must differ: pairs of one kind turn into pairs of the other and never into pairs of equals."""
    process, b = AbsorbingD3PM(remask=0.1), 2000
    n, t = torch.full((b,), 2), torch.full((b,), 0.4)
    streams = RandomStreams(0, range(b))
    x = torch.tensor([8, 26]).repeat(b)
    for _ in range(60):
        other = x.unflatten(0, (b, 2)).flip(1).flatten()
        logits = torch.full((2 * b, NUM_CLASSES), -50.0)
        logits[:, 7] = torch.where(other == 8, -50.0, 0.0)
        logits[:, 25] = torch.where(other == 26, -50.0, 0.0)
        hidden = (x == MASK).unflatten(0, (b, 2))
        x = process.correct(logits, x, t, n, generator=streams).unflatten(0, (b, 2))
        # two revealed in one step know nothing of each other: let the second wait
        both = hidden.all(1) & (x != MASK).all(1)
        x = torch.stack([x[:, 0], x[:, 1].masked_fill(both, MASK)], 1).flatten()
    pairs = x.unflatten(0, (b, 2))
    known = pairs[(pairs != MASK).all(1)]
    assert len(known) > 300
    assert (known.sum(1) == 34).all()
    assert (known[:, 0] == 8).float().mean() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("temperature", "odds"), [(1.0, 3.0), (0.5, 9.0)])
def test_temperature_sharpens_the_choice_of_elements(temperature, odds):
    process, n = AbsorbingD3PM(temperature=temperature), torch.tensor([20000])
    logits = torch.full((20000, NUM_CLASSES), -50.0)
    logits[:, 7], logits[:, 25] = math.log(3.0), 0.0
    masked = process.prior(n, generator=RandomStreams(0, range(1)))
    x = process.denoise(logits, masked, torch.ones(1), torch.zeros(1), n, generator=RandomStreams(1, range(1)))
    first, second = (x == 8).sum(), (x == 26).sum()
    assert first + second == 20000
    assert first / second == pytest.approx(odds, rel=0.07)


def test_posterior_between_arbitrary_times_equals_the_chain_of_single_steps():
    """Going from step 10 to step 4 at once, against D3PM's one-step posterior applied six times, in probabilities."""
    process = AbsorbingD3PM(num_steps=20)
    p = torch.zeros(1, NUM_CLASSES, dtype=torch.float64)
    p[0, [2, 30]] = torch.tensor([0.3, 0.7], dtype=torch.float64)
    state = torch.zeros(NUM_CLASSES, dtype=torch.float64)
    state[-1] = 1
    for step in range(9, 3, -1):
        masked = process.posterior_logits(p, torch.tensor([MASK]), torch.tensor([step])).softmax(-1)[0]
        state = state * (torch.arange(NUM_CLASSES) != NUM_CLASSES - 1) + state[-1] * masked
    stays = 4 / 10
    expected = (1 - stays) * p[0]
    expected[-1] = stays
    assert torch.allclose(state, expected, atol=1e-12)


def test_wrapped_normal_score_is_the_derivative_of_the_log_density():
    sigma = torch.tensor([0.01, 0.1, 0.3, 0.39, 0.41, 0.6, 1.0, 2.0], dtype=torch.float64)
    d = torch.linspace(-0.49, 0.49, 41, dtype=torch.float64)
    for s in sigma:
        x = d.clone().requires_grad_()
        images = torch.arange(-40, 41, dtype=torch.float64)
        density = torch.logsumexp(-((x.unsqueeze(-1) + images) ** 2) / (2 * s**2), -1)
        (truth,) = torch.autograd.grad(density.sum(), x)
        ours = wrapped_normal_score(d.unsqueeze(-1), s.expand(len(d), 1)).squeeze(-1)
        assert torch.allclose(ours * s, truth * s, atol=1e-12)


@pytest.mark.parametrize("atoms", [1, 4])
def test_corrector_leaves_the_distribution_of_a_normal_unchanged(atoms):
    """Langevin steps with the exact score keep a wrapped normal's spread, up to a step: (1 - snr^2)^-1/2."""
    process, n = WrappedVE(), torch.full((3000,), atoms)
    t = torch.full((3000,), 0.35)
    sigma = process.sigma(t, n)[0].double()
    generator = RandomStreams(0, range(3000))
    x = process.corrupt(torch.full((3000 * atoms, 3), 0.5), t, n, generator=generator)
    for _ in range(30):
        prediction = (wrapped_normal_score(x.double() - 0.5, sigma.expand(3000 * atoms, 1)) * sigma).float()
        x = process.correct(prediction, x, t, n, generator=generator)
    assert float((x - 0.5).std() / sigma) == pytest.approx((1 - 0.4**2) ** -0.5, abs=0.03)


def test_fixed_field_stays():
    x0 = torch.tensor([3, 8, 8])
    fixed, t, n = Fixed(), torch.tensor([0.5]), torch.tensor([3])
    generator = RandomStreams(0, range(1))
    assert torch.equal(fixed.corrupt(x0, t, n, generator=generator), x0)
    assert torch.equal(fixed.denoise(x0, x0, t, t, n, generator=generator), x0)
    assert float(fixed.loss(x0, x0, x0, t, n)) == 0
    with pytest.raises(ValueError, match="template"):
        CrystalProcess(species=fixed).species.prior(n, generator=generator)


@pytest.mark.parametrize("process", [WrappedVE(), LatticeVP(), AbsorbingD3PM(), Fixed()])
def test_the_target_is_what_costs_nothing(process):
    """The loss of its own target is zero (of species: of certainty), and larger for anything else."""
    n = NUM_ATOMS.repeat(50)
    generator = torch.Generator().manual_seed(0)
    x0 = {
        LatticeVP: 4 * torch.eye(3) + symmetric_form(torch.randn(len(n), 3, 3, generator=generator)),
        AbsorbingD3PM: torch.randint(1, 90, (int(n.sum()),), generator=generator),
    }.get(type(process), torch.rand(int(n.sum()), 3, generator=generator))
    t = torch.rand(len(n), generator=generator)
    x_t = process.corrupt(x0, t, n, generator=RandomStreams(0, range(len(n))))
    target = process.target(x0, x_t, t, n)
    assert process.loss(target, x0, x_t, t, n).abs().max() < 1e-5
    if not isinstance(process, Fixed):
        noise = torch.randn(target.shape, generator=generator) * (200 if isinstance(process, AbsorbingD3PM) else 1)
        assert (process.loss(target + noise, x0, x_t, t, n) > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("process", [WrappedVE(), LatticeVP(), AbsorbingD3PM(), Fixed()])
def test_the_estimate_of_the_target_is_the_data(process):
    n = NUM_ATOMS
    generator = torch.Generator().manual_seed(0)
    x0 = {
        LatticeVP: 4 * torch.eye(3).double() + symmetric_form(torch.randn(4, 3, 3, generator=generator).double()),
        AbsorbingD3PM: torch.randint(1, 90, (28,), generator=generator),
    }.get(type(process), torch.rand(28, 3, generator=generator).double())
    t = torch.full((4,), 0.3).double()
    x_t = process.corrupt(x0, t, n, generator=RandomStreams(0, range(4)))
    found = process.estimate(process.target(x0, x_t, t, n), x_t, t, n)
    difference = (found - x0).double()
    if isinstance(process, WrappedVE):
        difference = difference - difference.round()
    if not isinstance(process, Fixed):
        assert not torch.equal(x_t, x0)
    assert difference.abs().max() < 1e-6
