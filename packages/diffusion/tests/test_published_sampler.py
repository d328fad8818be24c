"""The published sampler, step by step, against runs of the published code with the noise that it drew."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import MASK, Prediction, RandomStreams, sample, uniform_times
from druse_diffusion.published import PublishedCoordinates, published_process
from druse_diffusion.testing import RecordedNoise
from safetensors.torch import load_file

NUM_ATOMS = torch.tensor([3, 7, 5])
RUNS = {"last10": range(990, 1000), "prior4": range(4), "mid_i300": [300], "mid_i700": [700]}


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(Path(__file__).parent / "data" / "published_sampler.safetensors")


def played_back(recorded, run, *, steps, from_prior):
    drawn = [recorded[key] for key in sorted(recorded) if key.startswith(f"{run}/noise/")]
    return RecordedNoise(drawn, len(NUM_ATOMS), steps=steps, from_prior=from_prior)


class RecordedScores:
    """Answers as the published network did, and keeps how far it was from being asked the same."""

    def __init__(self, recorded, run, process, *, guidance=None):
        self.recorded, self.run, self.process, self.guidance = recorded, run, process, guidance
        self.asked, self.off = 0, 0.0

    def __call__(self, noisy, t, conditions=None):
        def told(name, rows):
            values = self.recorded[f"{self.run}/nfe/{self.asked:03d}/{name}"]
            return values[:rows].double()

        def answer(name, rows):
            whole = self.recorded.get(f"{self.run}/nfe/{self.asked:03d}/{name}")
            whole = self.recorded[f"{self.run}/s_z_constant_logits"] if whole is None else whole
            if self.guidance is None:
                return whole.double()
            without, with_ = whole[:rows].double(), whole[rows:].double()
            return without + self.guidance * (with_ - without)

        b, n = len(noisy), len(noisy.frac_coords)
        off = noisy.frac_coords - told("pos", n)
        self.off = max(self.off, float((off - off.round()).abs().max()))
        self.off = max(self.off, float((noisy.lattice - told("cell", b)).abs().max()))
        assert torch.equal(noisy.atomic_numbers, told("z", n).long())
        assert torch.allclose(t, told("t", b), atol=1e-6)
        sigma = self.process.frac_coords.sigma(t, NUM_ATOMS).repeat_interleave(NUM_ATOMS)[:, None]
        std = self.process.lattice.std(t, NUM_ATOMS)[:, None, None]
        prediction = Prediction(
            lattice=std * answer("s_cell", b), frac_coords=sigma * answer("s_pos", n), species_logits=answer("s_z", n)
        )
        self.asked += 1
        return prediction


def crystals(recorded, where):
    return CrystalBatch(
        lattice=recorded[f"{where}/cell"].double(),
        frac_coords=recorded[f"{where}/pos"].double(),
        atomic_numbers=recorded[f"{where}/atomic_numbers"],
        num_atoms=NUM_ATOMS,
    )


def template():
    return CrystalBatch(
        lattice=torch.eye(3).double().expand(3, 3, 3),
        frac_coords=torch.zeros(15, 3).double(),
        atomic_numbers=torch.full((15,), MASK),
        num_atoms=NUM_ATOMS,
    )


def farthest(ours, theirs):
    off = ours.frac_coords - theirs.frac_coords
    assert torch.equal(ours.atomic_numbers, theirs.atomic_numbers)
    return max(float((off - off.round()).abs().max()), float((ours.lattice - theirs.lattice).abs().max()))


@pytest.mark.parametrize("kind", ["uncond", "guided"])
@pytest.mark.parametrize("name", RUNS)
def test_every_step_of_the_published_sampler(recorded, kind, name, record_property):
    run, steps = f"{kind}/{name}", RUNS[name]
    process, times = published_process(), uniform_times(1000)
    noise = played_back(recorded, run, steps=len(steps), from_prior=name == "prior4")
    scores = RecordedScores(recorded, run, process, guidance=2.0 if kind == "guided" else None)
    x = process.prior(template(), generator=noise) if name == "prior4" else crystals(recorded, f"{run}/start")
    for step in steps:
        t, s = (torch.full((3,), time).double() for time in times[step : step + 2])
        x = process.correct(scores(x, t), x, t, generator=noise)
        x = process.denoise(scores(x, t), x, t, s, generator=noise)
    assert not noise.left()
    last = "final_mean" if name == "last10" else "final_sample"
    off = max(scores.off, farthest(x, crystals(recorded, f"{run}/{last}")))
    record_property("largest difference", off)
    assert off < 5e-5


def test_a_whole_run_of_forty_steps(recorded, record_property):
    """Scores that point at known crystals; they are recorded in float32 and amplify errors 150 times."""
    process = published_process(40)
    noise = played_back(recorded, "oracle40", steps=40, from_prior=True)
    scores = RecordedScores(recorded, "oracle40", process)
    x = sample(process, scores, template(), times=uniform_times(40), n_corrector_steps=1, generator=noise)
    assert scores.asked == 80
    assert not noise.left()
    off = max(scores.off, farthest(x, crystals(recorded, "oracle40/final_mean")))
    record_property("largest difference", off)
    assert off < 2e-3


def test_crystals_depend_on_the_batch_as_published():
    """The size of a Langevin step is that of the batch: the reason why Druse has its own."""
    process, x = PublishedCoordinates(), torch.rand(7, 3, generator=torch.Generator().manual_seed(0))
    prediction = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    t, n = torch.tensor([0.3, 0.3]), torch.tensor([3, 4])

    def step(rows, crystals):
        streams = RandomStreams(0, torch.tensor(crystals))
        return process.correct(prediction[rows], x[rows], t[crystals], n[crystals], generator=streams)

    together, alone = step(slice(0, 7), [0, 1]), step(slice(0, 3), [0])
    assert not torch.allclose(together[:3], alone, atol=1e-3)


def test_the_grid_is_the_published_one():
    times = uniform_times(1000)
    assert max(abs((t - s) - 0.001) for t, s in pairwise(times)) < 1e-12
