"""Noise that keeps the symmetry of some training crystals, and runs that learn from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from druse_crystal import CrystalBatch
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.symmetry import space_group
from druse_diffusion import NUM_CLASSES, CrystalProcess, LatticeVP, Prediction, RandomStreams, training_loss
from druse_train.cli import app
from druse_train.state import load_state
from druse_train.symmetric_noise import SymmetricNoise
from typer.testing import CliRunner

ROWS = range(0, 3800, 300)
RECIPE = """
network: {width: 16, pair_width: 8, vector_width: 4, num_layers: 1, num_radial: 4, num_harmonics: 2}
data: {pair_budget: 300}
symmetric: 0.5
mixed_precision: false
threads: 1
"""


@pytest.fixture(scope="module")
def dataset():
    return load_embedded().subset("train")


@pytest.fixture(scope="module")
def crystals(dataset):
    return CrystalBatch.from_crystals([dataset.crystals[row] for row in ROWS])


def noised(crystals, keeps, t=0.4):
    index = torch.arange(len(crystals))
    noise = SymmetricNoise(CrystalProcess(), crystals).of(index, keeps, device=torch.device("cpu"))
    return noise.corrupt(crystals, torch.full((len(index),), t), generator=RandomStreams(3, index))


def test_crystals_keep_their_group_and_are_noisy(crystals):
    noisy = noised(crystals, torch.ones(len(crystals), dtype=torch.bool))
    revealed = noisy.replace(atomic_numbers=crystals.atomic_numbers)
    for before, after in zip(crystals.to_crystals(), revealed.to_crystals(), strict=True):
        assert space_group(after, symprec=0.02).number == space_group(before).number
    moved = noisy.frac_coords - crystals.frac_coords
    assert (moved - moved.round()).abs().max() > 0.02
    assert (noisy.lattice - crystals.lattice).abs().amax((1, 2)).min() > 0.1
    assert (noisy.atomic_numbers != crystals.atomic_numbers).any()


def test_the_others_are_noised_as_ever(crystals):
    index = torch.arange(len(crystals))
    keeps = index % 2 == 0
    noisy = noised(crystals, keeps)
    plain = CrystalProcess().corrupt(crystals, torch.full((len(index),), 0.4), generator=RandomStreams(3, index))
    others = (~keeps).nonzero().squeeze(-1)
    a, b = noisy.select(others), plain.select(others)
    assert torch.allclose(a.lattice, b.lattice, atol=1e-4)
    assert torch.allclose(a.frac_coords, b.frac_coords, atol=1e-6)
    assert torch.equal(a.atomic_numbers, b.atomic_numbers)
    assert not torch.allclose(noisy.frac_coords, plain.frac_coords, atol=1e-3)


def test_the_loss_compares_with_the_crystal_that_was_noised(crystals):
    """A network that says by how much the lattice was noised has no loss, whatever noise that was."""
    index, vp = torch.arange(len(crystals)), LatticeVP()
    process = CrystalProcess(lattice=vp)
    noise = SymmetricNoise(process, crystals).of(index, index >= 0, device=torch.device("cpu"))
    seen = []

    def knowing(noisy, t, conditions=None):
        seen.append(noisy)
        n = noisy.num_atoms
        off = noisy.lattice - vp.mean(crystals.lattice, t, n)
        return Prediction(
            lattice=-off / vp.std(t, n)[:, None, None],
            frac_coords=torch.zeros_like(noisy.frac_coords),
            species_logits=torch.zeros(len(noisy.frac_coords), NUM_CLASSES),
        )

    losses = training_loss(process, knowing, crystals, generator=RandomStreams(0, index), noise=noise)
    assert losses.lattice.max() < 1e-6
    assert losses.frac_coords.mean() > 0.01
    assert len(seen) == 1


@pytest.fixture
def small(tmp_path, dataset):
    part = CrystalDataset(
        ids=dataset.ids[:60],
        crystals=[dataset.crystals[row] for row in range(60)],
        split=np.array(["val" if row % 5 == 0 else "train" for row in range(60)]),
    )
    part.write(tmp_path / "data.parquet")
    return tmp_path


def run(folder: Path, out: str, extra: str, *options, recipe: str = RECIPE):
    path = folder / f"{out}.yaml"
    path.write_text(recipe + extra)
    data = str(folder / "data.parquet")
    return CliRunner().invoke(app, ["fit", str(path), "--data", data, "--out", str(folder / out), *options])


def test_a_run_with_symmetric_noise_stops_and_resumes_on_the_same_path(small):
    for out, extra, options in (
        ("whole", "max_steps: 6", ()),
        ("parts", "max_steps: 3", ()),
        ("parts", "max_steps: 6", ("--resume",)),
    ):
        result = run(small, out, extra, *options)
        assert result.exit_code == 0, result.output
    a, b = (load_state(small / out / "state.safetensors")[0] for out in ("whole", "parts"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_share_beyond_one_is_refused(small):
    result = run(small, "much", "", recipe=RECIPE.replace("symmetric: 0.5", "symmetric: 50"))
    assert result.exit_code == 2
    assert "symmetric is 50" in result.output
