"""What a request for the published sampler builds, against whole steps that the published code recorded."""

import json
from pathlib import Path

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_crystal.alex_mp_20 import ELEMENTS, NUM_ATOMS
from druse_diffusion import uniform_times
from druse_diffusion.testing import RecordedNoise
from druse_generate.checking import check
from druse_generate.config import GenerateConfig, with_options
from druse_guidance.targets import conditions_of
from druse_scores import Checkpoint
from druse_scores.gemnet.published import network_of
from safetensors import safe_open

DATA = Path(__file__).parents[3] / "packages" / "scores" / "tests" / "data" / "published_trajectories.safetensors"
RUNS = {"last10": (range(990, 1000), 1000), "mid_i300": ([300], 50), "mid_i700": ([700], 50)}


@pytest.fixture(scope="module")
def recorded():
    with safe_open(DATA, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dictionary
        return tensors, json.loads(file.metadata()["facts"])


@pytest.mark.parametrize("run", RUNS)
@torch.no_grad()
def test_parity_of_steps_with_properties_asked_for(recorded, run, capsys):
    """The same guided steps as the published command takes: masks of elements and of the system, joint properties."""
    tensors, facts = recorded
    where, (steps, max_neighbors) = f"guided/{run}", RUNS[run]
    start = "guided/state_dict/"
    states = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    states |= {name.replace(".layers.", ".seq_energy."): v for name, v in states.items() if ".out_blocks." in name}
    network = network_of(states, max_neighbors=max_neighbors).double()
    checkpoint = Checkpoint(network=network, num_atoms=dict(NUM_ATOMS), elements=ELEMENTS)
    asked = [f"{name}={value}" for name, value in facts["properties"].items()]
    wishes = check(checkpoint, with_options(GenerateConfig(), sampler="published", targets=asked, guidance=2.0))
    plans = wishes.plans(range(3))
    told = conditions_of(wishes.targets, [plan.asked for plan in plans])
    process, times = wishes.process, uniform_times(1000)
    drawn = [tensors[key] for key in sorted(tensors) if key.startswith(f"{where}/noise/")]
    noise = RecordedNoise(drawn, 3, steps=len(steps), from_prior=False)

    def crystals(part, species):
        return CrystalBatch(
            lattice=tensors[f"{where}/{part}/cell"].double(),
            frac_coords=tensors[f"{where}/{part}/pos"].double(),
            atomic_numbers=tensors[f"{where}/{part}/{species}"].long(),
            num_atoms=torch.tensor(facts["num_atoms"]),
        )

    worst = 0.0
    for i, step in enumerate(steps):
        t, s = (torch.full((3,), time).double() for time in times[step : step + 2])
        before, between = (crystals(f"nfe/{2 * i + j:03d}", "z") for j in (0, 1))
        if i + 1 < len(steps):
            after = crystals(f"nfe/{2 * i + 2:03d}", "z")
        else:
            after = crystals("final_mean" if run == "last10" else "final_sample", "atomic_numbers")
        corrected = process.correct(wishes.model(before, t, told), before, t, generator=noise)
        stepped = process.denoise(wishes.model(between, t, told), between, t, s, generator=noise)
        for ours, theirs in ((corrected, between), (stepped, after)):
            assert torch.equal(ours.atomic_numbers, theirs.atomic_numbers)
            moved, strained = ours.frac_coords - theirs.frac_coords, ours.lattice - theirs.lattice
            off = float((moved - moved.round()).abs().max() / theirs.frac_coords.abs().max())
            worst = max(worst, off, float(strained.abs().max() / theirs.lattice.abs().max()))
    assert noise.left() == 0
    with capsys.disabled():
        print(f"\nrelative error, each step as requested of {where}: {worst:.1e}")
    assert worst < 5e-5
