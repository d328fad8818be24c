"""Forward processes, losses and samplers' coefficients against numbers recorded from the published code."""

import math
from pathlib import Path

import pytest
import torch
from druse_crystal.lattice import symmetric_form
from druse_diffusion import MASK, NUM_CLASSES, AbsorbingD3PM, CrystalProcess, LatticeVP, WrappedVE
from druse_diffusion.coordinates import wrapped_normal_score
from druse_diffusion.published import PublishedCoordinates, truncated_score
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(Path(__file__).parent / "data" / "published_corruption.safetensors")


def test_width_of_coordinate_noise(recorded):
    t, n = recorded["grid/t"], recorded["grid/num_atoms"]
    ours = torch.stack([WrappedVE().sigma(time.expand(20), n) for time in t])
    assert torch.allclose(ours, recorded["pos/std"], rtol=1e-5)


def test_wrapped_score_where_the_published_one_is_exact(recorded):
    """The published sum over seven images has no nearest-image reduction: exact for small widths only."""
    sigma = recorded["wrapped/sigma"].double()
    narrow = sigma < 0.4
    d = (recorded["wrapped/xt"] - recorded["wrapped/x0"]).double()
    ours = wrapped_normal_score(d, sigma.unsqueeze(-1))
    assert narrow.sum() > 100
    assert torch.allclose(ours[narrow], recorded["wrapped/score64"][narrow], rtol=1e-9, atol=1e-9)


def test_the_published_score_at_every_width(recorded):
    """Its truncated sum, quirk included; and the training loss, whose target it is (S8)."""
    sigma = recorded["wrapped/sigma"].double().unsqueeze(-1)
    d = (recorded["wrapped/xt"] - recorded["wrapped/x0"]).double()
    theirs = recorded["wrapped/score64"]
    assert torch.allclose(truncated_score(d, sigma), theirs, rtol=1e-9, atol=1e-9)
    wide = (sigma > 1).squeeze(-1)
    assert wide.sum() > 10
    assert not torch.allclose(wrapped_normal_score(d, sigma)[wide], theirs[wide], rtol=0.1, atol=1e-3)
    there = sigma.squeeze(-1) > 0.011  # widths that a crystal of one atom has at some time
    sigma, theirs, x0, x_t = (x[there] for x in (sigma, theirs, recorded["wrapped/x0"], recorded["wrapped/xt"]))
    t = (sigma.squeeze(-1) / 0.01).log() / math.log(500)
    one = torch.ones(len(t), dtype=torch.long)
    loss = PublishedCoordinates().loss(torch.zeros_like(theirs), x0.double(), x_t.double(), t, one)
    assert torch.allclose(loss, (sigma * theirs).square().mean(-1), rtol=1e-6)


def test_lattice_process(recorded):
    process, t, n = LatticeVP(), recorded["grid/t"], recorded["grid/num_atoms"]
    assert torch.allclose(process.mean_coefficient(t), recorded["cell/mean_coeff"], rtol=1e-5)
    assert torch.allclose(process.prior_mean(n), recorded["cell/limit_mean"], rtol=1e-5)
    assert torch.allclose(process.prior_variance(n), recorded["cell/limit_var"][:, 0, 0], rtol=1e-5)
    for i, time in enumerate(t):
        mean = process.mean(recorded["cell/x"], time.expand(20), n)
        std = process.std(time.expand(20), n)
        assert torch.allclose(mean, recorded["cell/marginal_mean"][i], rtol=1e-4, atol=1e-5)
        assert torch.allclose(std, recorded["cell/marginal_std"][i, :, 0, 0], rtol=2e-3)  # 1 - m^2 in float32
    assert torch.allclose(symmetric_form(recorded["cell/polar_in"]), recorded["cell/polar_out"], atol=2e-4)


def test_species_posterior(recorded):
    process, step, x0 = AbsorbingD3PM(), recorded["d3pm/t"], recorded["d3pm/x0"]
    one_hot = torch.nn.functional.one_hot(x0, NUM_CLASSES).float()
    soft = recorded["d3pm/x0_logits"].softmax(-1)
    masked = torch.full_like(x0, MASK)
    for name, p, x_t in (("x0_onehot/xt_masked", one_hot, masked), ("x0_probs/xt_masked", soft, masked)):
        ours = process.posterior_logits(p, x_t, step).softmax(-1)
        truth = recorded[f"d3pm/posterior_probs_softmax/{name}"]
        rows = step > 0  # at step 0 the published code lets the mask class of x0 pass; a network never predicts it
        assert torch.allclose(ours[rows], truth[rows], atol=1e-5)


def test_losses(recorded):
    process = CrystalProcess()
    t, n = recorded["loss/t"], recorded["loss/num_atoms"]
    lattice = process.lattice.loss(
        recorded["loss/model_out_cell"], recorded["loss/cell"], recorded["loss/noisy_cell"], t, n
    )
    species = process.species.loss(
        recorded["loss/model_out_logits"], recorded["loss/z"], recorded["loss/noisy_z"], t, n
    )
    coords = process.frac_coords.loss(
        recorded["loss/model_out_pos"], recorded["loss/frac"], recorded["loss/noisy_frac"], t, n
    )
    assert torch.allclose(lattice, recorded["loss/per_sample/cell"], rtol=1e-4)
    assert torch.allclose(species, recorded["loss/per_sample/atomic_numbers"], rtol=1e-4)
    narrow = t < 0.9  # past this the published target is the truncated image sum
    assert torch.allclose(coords[narrow], recorded["loss/per_sample/pos"][narrow], rtol=1e-4)
    assert narrow.sum() == 5


def test_ancestral_steps(recorded):
    """Mean and noise of one predictor step, as coefficients of x, score and noise, on the published grid."""
    t = recorded["sampling/timesteps_1000"][recorded["sampling/step_idx"]]
    s = (t - 0.001).clamp(min=0)
    s[-1] = 0
    atoms = recorded["sampling/num_atoms"]
    ve, vp = WrappedVE(), LatticeVP()
    for i, (now, then) in enumerate(zip(t, s, strict=True)):
        now, then = now.expand(5), then.expand(5)
        # variance-exploding
        wide, narrow = ve.sigma(now, atoms), ve.sigma(then, atoms)
        variance = wide**2 - narrow**2
        truth = recorded["sampling/pos_xcoeff_scorecoeff_std"][i]
        assert torch.allclose(variance, truth[1], rtol=2e-3)
        assert torch.allclose(variance.sqrt() * narrow / wide, truth[2], rtol=2e-3, atol=1e-7)
        # variance-preserving
        a = vp.mean_coefficient(now) / vp.mean_coefficient(then)
        variance = vp.prior_variance(atoms) * (1 - a**2)
        truth = recorded["sampling/cell_xcoeff_scorecoeff_std"][i]
        assert torch.allclose(1 / a, truth[0], rtol=1e-4)
        assert torch.allclose(variance / a, truth[1], rtol=1e-2)
        noise = variance.sqrt() * vp.std(then, atoms) / vp.std(now, atoms)
        assert torch.allclose(noise, truth[2], rtol=1e-2, atol=1e-6)
    alpha = (vp.mean_coefficient(recorded["sampling/timesteps_1000"]) ** 2) / (
        vp.mean_coefficient(recorded["sampling/timesteps_1000"] - vp.corrector_interval) ** 2
    )
    assert torch.allclose(alpha, recorded["sampling/cell_langevin_alpha_1000"], rtol=1e-4)
