"""Every shipped corruption keeps the contract, and equals the published code's numbers."""

import math

import pytest
import torch
from druse_crystal.lattice import symmetric_form
from druse_diffusion import MASK, NUM_CLASSES, AbsorbingD3PM, CrystalProcess, Fixed, LatticeVP, RandomStreams, WrappedVE
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

    check_corruption(AbsorbingD3PM(), x0, oracle, num_atoms=NUM_ATOMS)


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
