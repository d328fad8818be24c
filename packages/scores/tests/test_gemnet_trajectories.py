"""The published network in the published sampler: whole pieces of recorded runs, with and without guidance."""

import json
from pathlib import Path

import pytest
import torch
from ase.data import atomic_numbers
from druse_crystal import CrystalBatch
from druse_crystal.alex_mp_20 import ELEMENTS
from druse_diffusion import MASK, NUM_ELEMENTS, Conditions, Prediction, uniform_times
from druse_diffusion.published import published_process
from druse_diffusion.testing import RecordedNoise
from druse_scores.gemnet.published import network_of
from safetensors import safe_open

DATA = Path(__file__).parent / "data" / "published_trajectories.safetensors"
RUNS = {
    "last10": (range(990, 1000), 1000),
    "prior4": (range(4), 1000),
    "mid_i300": ([300], 50),
    "mid_i700": ([700], 50),
}
FORBIDDEN = -1e10  # what the published code adds to the logits of elements that are not allowed
GUIDANCE = 2.0
KINDS = ["guided", "uncond"]


@pytest.fixture(scope="module")
def recorded():
    with safe_open(DATA, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dictionary
        return tensors, json.loads(file.metadata()["facts"])


class Guided:
    """The network as the published code asks it: elements forbidden, a chemical system only where it is told."""

    def __init__(self, network, properties):
        self.network = network
        known = {p.name: p for p in network.config.properties}
        self.conditions = Conditions()
        if known:
            density = known["dft_mag_density"]
            system = torch.zeros(1, NUM_ELEMENTS, dtype=torch.float64)
            system[0, [atomic_numbers[s] - 1 for s in properties["chemical_system"].split("-")]] = 1
            self.conditions = Conditions(
                values={
                    "chemical_system": system.expand(3, -1),
                    "dft_mag_density": torch.full((3,), (properties["dft_mag_density"] - density.mean) / density.std),
                },
                given={name: torch.tensor([True] * 3) for name in known},
            )
        self.allowed = torch.zeros(NUM_ELEMENTS + 1, dtype=torch.bool)
        self.allowed[[z - 1 for z in ELEMENTS]] = True

    def __call__(self, noisy, t):
        free = self.masked(self.network(noisy, t), self.allowed)
        if not self.conditions.values:
            return free
        of_system = self.allowed.clone()
        of_system[:NUM_ELEMENTS] &= self.conditions.values["chemical_system"][0].bool()
        told = self.masked(self.network(noisy, t, self.conditions), of_system)
        return Prediction(
            lattice=free.lattice + GUIDANCE * (told.lattice - free.lattice),
            frac_coords=free.frac_coords + GUIDANCE * (told.frac_coords - free.frac_coords),
            species_logits=free.species_logits + GUIDANCE * (told.species_logits - free.species_logits),
        )

    @staticmethod
    def masked(out, allowed):
        return Prediction(
            lattice=out.lattice,
            frac_coords=out.frac_coords,
            species_logits=out.species_logits + FORBIDDEN * ~allowed,
        )


class Run:
    """One recorded run: its model, its noise, and the crystals that the published network was asked about."""

    def __init__(self, recorded, kind, name):
        tensors, facts = recorded
        self.tensors, self.name, self.where = tensors, name, f"{kind}/{name}"
        self.steps, max_neighbors = RUNS[name]
        start = f"{kind}/state_dict/"
        states = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        self.model = Guided(network_of(with_aliases(states), max_neighbors=max_neighbors).double(), facts["properties"])
        self.num_atoms = torch.tensor(facts["num_atoms"])
        drawn = [tensors[key] for key in sorted(tensors) if key.startswith(f"{self.where}/noise/")]
        self.noise = RecordedNoise(drawn, 3, steps=len(self.steps), from_prior=name == "prior4")

    def crystals(self, where, species="atomic_numbers"):
        part = {key: self.tensors[f"{self.where}/{where}/{key}"] for key in ("cell", "pos", species)}
        return CrystalBatch(
            lattice=part["cell"].double(),
            frac_coords=part["pos"].double(),
            atomic_numbers=part[species].long(),
            num_atoms=self.num_atoms,
        )

    @property
    def end(self):
        return self.crystals("final_mean" if self.name == "last10" else "final_sample")


def differences(ours, theirs):
    assert torch.equal(ours.atomic_numbers, theirs.atomic_numbers)
    off = ours.frac_coords - theirs.frac_coords
    return {
        "frac_coords": float((off - off.round()).abs().max() / theirs.frac_coords.abs().max()),
        "lattice": float((ours.lattice - theirs.lattice).abs().max() / theirs.lattice.abs().max()),
    }


def largest(*errors):
    return {name: max(one[name] for one in errors) for name in errors[0]}


def told(what, errors):
    print(f"\nrelative error, {what}: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_parity_of_every_recorded_step(recorded, kind, name, capsys):
    """Each corrector and each predictor, from the recorded crystals to the next ones."""
    run = Run(recorded, kind, name)
    process, times = published_process(), uniform_times(1000)
    if name == "prior4":
        empty = run.end.replace(atomic_numbers=torch.full_like(run.end.atomic_numbers, MASK))
        start = process.prior(empty, generator=run.noise)
        assert max(differences(start, run.crystals("nfe/000", "z")).values()) < 1e-5
    errors = []
    for i, step in enumerate(run.steps):
        t, s = (torch.full((3,), time).double() for time in times[step : step + 2])
        before, between = (run.crystals(f"nfe/{2 * i + j:03d}", "z") for j in (0, 1))
        last = i + 1 == len(run.steps)
        after = run.end if last else run.crystals(f"nfe/{2 * i + 2:03d}", "z")
        corrected = process.correct(run.model(before, t), before, t, generator=run.noise)
        stepped = process.denoise(run.model(between, t), between, t, s, generator=run.noise)
        errors += [differences(corrected, between), differences(stepped, after)]
    assert run.noise.left() == 0
    with capsys.disabled():
        told(f"each step of {run.where}", largest(*errors))
    # near t = 1 a step is long, and scores are recorded in float32
    assert max(largest(*errors).values()) < (2e-3 if name == "prior4" else 5e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_parity_of_the_last_ten_steps_in_one_go(recorded, kind, capsys):
    """From the recorded start alone; where a run begins in noise, rounding decides what becomes of it."""
    run = Run(recorded, kind, "last10")
    process, times, x = published_process(), uniform_times(1000), run.crystals("start")
    for step in run.steps:
        t, s = (torch.full((3,), time).double() for time in times[step : step + 2])
        x = process.correct(run.model(x, t), x, t, generator=run.noise)
        x = process.denoise(run.model(x, t), x, t, s, generator=run.noise)
    errors = differences(x, run.end)
    with capsys.disabled():
        told(f"after ten steps of {run.where}", errors)
    assert max(errors.values()) < 2e-3


def with_aliases(states):
    """The recording leaves out tensors that stand in a checkpoint under two names."""
    twice = {name.replace(".layers.", ".seq_energy."): v for name, v in states.items() if ".out_blocks." in name}
    return twice | states
