"""Crystal structure prediction by a model that is given the species."""

import json

import numpy as np
import pytest
import torch
from druse_crystal.io import read_crystals
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.config import GenerateConfig, SamplerConfig, with_options
from druse_generate.generating import generate
from druse_scores import load_checkpoint
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=4, corrector_steps=1)


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={2: 10, 4: 10, 8: 10}, elements=(3, 8, 11, 17), given_species=True, provenance={})


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("sampler", ["fast", "published"])
def test_the_network_is_given_the_species_at_every_time(model, sampler):
    checkpoint = load_checkpoint(model)
    assert checkpoint.given_species
    seen = []
    checkpoint.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].atomic_numbers))
    config = with_options(
        GenerateConfig(num=3), formula="NaCl", num_atoms="4", sampler=sampler, steps=4, corrector_steps=1
    )
    draws = [draw for batch in generate(check(checkpoint, config), range(3)) for draw in batch]
    assert len(seen) == 8
    assert all(torch.equal(numbers, torch.tensor([11, 11, 17, 17] * 3)) for numbers in seen)
    crystals = [draw.crystal for draw in draws if draw.crystal is not None]
    assert all(crystal.atomic_numbers.tolist() == [11, 11, 17, 17] for crystal in crystals)
    assert not np.allclose(crystals[0].lattice, crystals[1].lattice)


def test_counts_leave_no_species_open(model):
    checkpoint = load_checkpoint(model)
    wishes = check(checkpoint, with_options(GenerateConfig(), counts="Na:2,Cl:2"))
    assert wishes.sizes == (4,)
    assert {plan.num_atoms for plan in check(checkpoint, with_options(GenerateConfig(), formula="LiO")).plans(range(9))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give all of them, by a formula"),
        ({"chemical_system": "Na-Cl"}, "give all of them, by a formula"),
        ({"counts": "Na:1-,Cl:1"}, "give all of them, by a formula"),
        ({"formula": "NaCl", "space_group": 225}, "a symmetry cannot be asked of it"),
    ],
)
def test_what_leaves_species_open_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        check(load_checkpoint(model), with_options(GenerateConfig(sampler=SHORT), **options))


def test_commands(model, tmp_path):
    result = run("generate", "--model", model, "--formula", "NaCl", "--num", 2, "--steps", 4, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    drawn = [found.crystal for found in read_crystals(tmp_path / "a" / "crystals.extxyz")]
    assert all(crystal is not None and set(crystal.atomic_numbers.tolist()) == {11, 17} for crystal in drawn)
    assert json.loads(run("info", "--model", model, "--json").stdout)["species"].startswith("given")
    refused = run("generate", "--model", model, "--out", tmp_path / "b")
    assert refused.exit_code == 2
    assert "--formula Li2FeO4" in " ".join(refused.stderr.split())
