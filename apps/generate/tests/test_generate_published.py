"""Published networks: imported, listed, asked for properties and held to constraints like any other model."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from druse_crystal.io import read_crystals
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.config import SAMPLERS, GenerateConfig
from druse_generate.property_request import PropertyRequest
from druse_scores import load_checkpoint
from druse_scores.gemnet import GemNet, GemNetConfig, KnownProperty
from druse_scores.gemnet.lightning_file import PUBLISHED
from druse_scores.gemnet.published import PREFIX, published_shapes
from typer.testing import CliRunner

KNOWN = (
    KnownProperty(name="ml_bulk_modulus", kind="log_scalar", mean=1.75, std=0.25),
    KnownProperty(name="chemical_system", kind="chemical_system"),
    KnownProperty(name="space_group", kind="space_group"),
)
TINY = GemNetConfig(num_blocks=1, hidden=16, trip=8, bilinear=8, rbf=4, cbf=4, num_radial=16, properties=KNOWN)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random network, as the published code would have saved it, imported by the command."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    network = GemNet(TINY)
    tensors = {name: 0.1 * torch.randn(shape) for name, shape in published_shapes(network).items()}
    tensors |= network.state_dict()
    for name in tensors:
        if "cond_mixin" in name:
            tensors[name] = torch.randn_like(tensors[name])
    (folder / "run").mkdir()
    torch.save({"state_dict": {PREFIX + n: v for n, v in tensors.items()}}, folder / "run" / "last.ckpt")
    result = run("import-checkpoint", folder / "run", "--out", folder / "druse", "--json")
    assert result.exit_code == 0, result.output
    assert "there were no settings in the file" in " ".join(result.stderr.split())
    assert json.loads(result.stdout)["parameters"] == sum(p.numel() for p in network.parameters())
    return folder / "druse"


def test_it_lists_what_can_be_asked(model):
    facts = json.loads(run("info", "--model", model, "--json").stdout)
    assert {known["name"]: known["description"] for known in facts["properties"]} == {
        "ml_bulk_modulus": "a number GPa, its decadic logarithm learnt with mean 1.75, std 0.25",
        "chemical_system": "elements with hyphens, such as Li-O",
        "space_group": "230 space groups (1-230)",
    }
    assert facts["num_atoms"] == [1, 20]
    assert len(facts["elements"]) == 76


def test_it_draws_with_properties_and_constraints(model, tmp_path):
    common = ["generate", "--model", model, "--num", 3, "--steps", 4, "--num-atoms", "4", "--quiet"]
    drawn = {}
    for name, options in {
        "plain": [],
        "asked": ["--property", "ml_bulk_modulus=200..300"],
        "harder": ["--property", "ml_bulk_modulus=200..300", "--guidance", 5],
        "formula": ["--formula", "LiO", "--property", "space_group=225"],
        "group": ["--space-group", 221, "--sampler", "published"],
    }.items():
        result = run(*common, *options, "--out", tmp_path / name)
        assert result.exit_code == 0, (name, result.output)
        found = [r.crystal for r in read_crystals(tmp_path / name / "crystals.extxyz")]
        drawn[name] = [crystal for crystal in found if crystal is not None]
        assert len(drawn[name]) == 3
    for one, other in (("plain", "asked"), ("asked", "harder")):
        assert any(abs(a.lattice - b.lattice).max() > 1e-4 for a, b in zip(drawn[one], drawn[other], strict=True))
    assert all(Counter(c.atomic_numbers.tolist()) == {3: 2, 8: 2} for c in drawn["formula"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--property", "dft_band_gap=1"], "it knows ml_bulk_modulus (a number GPa"),
        (["--property", "ml_bulk_modulus>=300"], "write a value or a range"),
        (["--property", "ml_bulk_modulus=stiff"], "such as ml_bulk_modulus=56.2"),
        (["--property", "ml_bulk_modulus=300", "--guidance", "0"], "guidance of 0"),
        (["--include", "Pm"], "Pm"),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, options, words):
    result = run("generate", "--model", model, "--num", 1, "--out", tmp_path / "x", *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


def test_a_name_is_imported_once(model, tmp_path, monkeypatch):
    from druse_generate import find_model
    from druse_scores import load_checkpoint

    calls = []

    def read(name):
        calls.append(name)
        return load_checkpoint(model)

    monkeypatch.setattr(find_model, "import_checkpoint", read)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    common = ["generate", "--model", "mattergen_base", "--steps", 2, "--num-atoms", 2]
    for out in ("a", "mattergen_base"):  # a folder of results with the name of the model does not hide it
        for num in (1, 2):
            result = run(*common, "--num", num, "--out", out)
            assert result.exit_code == 0, result.output
    assert calls == ["mattergen_base"]
    assert "as imported before" in " ".join(result.stderr.split())
    (tmp_path / "druse" / "mattergen_base" / "weights.safetensors").unlink()
    assert run(*common, "--num", 3, "--out", "a").exit_code == 0
    assert calls == ["mattergen_base"] * 2
    result = run("generate", "--model", "mattergen_bass", "--num", 1, "--out", tmp_path / "c")
    assert result.exit_code == 2
    words = " ".join(result.stderr.split())
    assert "mattergen_bass does not exist" in words
    assert all(name in words for name in PUBLISHED)
    result = run("generate", "--model", "nothing.ckpt", "--num", 1, "--out", tmp_path / "c")
    assert "nothing.ckpt does not exist" in " ".join(result.stderr.split())


def test_a_folder_of_the_name_gives_the_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(model.parent / "run", tmp_path / "space_group")
    result = run("info", "--model", "space_group")
    assert result.exit_code == 0, result.output
    assert "imported from the file space_group/last.ckpt" in " ".join(result.stderr.split())
    result = run("import-checkpoint", "space_group", "--out", "imported")
    assert "from the file space_group/last.ckpt" in " ".join(result.stdout.split())
    assert "another file than the one that had this name" in " ".join(result.stdout.split())


def test_an_import_overwrites_nothing(model, tmp_path):
    before = sorted(path.name for path in (model.parent / "run").iterdir())
    for out in (model.parent / "run", model):
        result = run("import-checkpoint", model.parent / "run", "--out", out)
        assert result.exit_code == 2
        assert "is no empty folder" in " ".join(result.stderr.split())
    assert sorted(path.name for path in (model.parent / "run").iterdir()) == before
    result = run("import-checkpoint", model, "--out", tmp_path / "x")
    assert "is a checkpoint of Druse already" in " ".join(result.stderr.split())


def test_what_it_learnt_and_is_not_asked_for_is_said(model, tmp_path):
    common = ["generate", "--model", model, "--num", 1, "--steps", 2, "--num-atoms", 4, "--quiet"]
    said = {}
    for name, options in {
        "system": ["--chemical-system", "Li-O"],
        "group": ["--space-group", 225],
        "asked": ["--chemical-system", "Li-O", "--property", "chemical_system=Li-O"],
    }.items():
        result = run(*common, *options, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        said[name] = " ".join(result.stderr.split())
    assert "add --property chemical_system=Li-O" in said["system"]
    assert "add --property space_group=225" in said["group"]
    assert "--property" not in said["asked"]


def test_elements_that_are_assumed_are_said_to_be(model, tmp_path):
    assert "training_crystals" not in json.loads(run("info", "--model", model, "--json").stdout)
    result = run("generate", "--model", model, "--num", 1, "--formula", "UO2", "--out", tmp_path / "x")
    assert result.exit_code == 2
    words = " ".join(result.stderr.split())
    assert "those of Alex-MP-20 are assumed, and U is not one" in words
    assert "--data" in words


def test_sizes_that_are_assumed_are_said_to_be_and_can_be_exceeded(model, tmp_path):
    common = ["generate", "--model", model, "--num", 1, "--steps", 2, "--formula", "Li10GeP2S12"]
    result = run(*common, "--out", tmp_path / "x")
    assert result.exit_code == 2
    words = " ".join(result.stderr.split())
    assert "cells of 1 to 20 atoms cannot hold Li10GeP2S12" in words
    assert "those of Alex-MP-20 are assumed: ask for others by --num-atoms" in words
    result = run(*common, "--num-atoms", 25, "--quiet", "--out", tmp_path / "y")
    assert "cells of 25 atoms were asked for" in " ".join(result.stderr.split())
    lines = (tmp_path / "y" / "generated.jsonl").read_text().splitlines()
    crystal = json.loads(lines[1])["crystal"]
    assert crystal is None or len(crystal["atomic_numbers"]) == 25


def test_sizes_of_a_space_group_that_was_learnt_are_those_of_training_with_the_published_sampler(model):
    asked = GenerateConfig(properties=PropertyRequest(targets=("space_group=225",)))
    checkpoint = load_checkpoint(model)
    ours = check(checkpoint, asked)
    theirs = check(checkpoint, replace(asked, sampler=SAMPLERS["published"]))
    assert theirs.weights == tuple(float(checkpoint.num_atoms[size]) for size in theirs.sizes)
    assert ours.weights != theirs.weights


def test_lattices_start_at_the_density_that_the_model_was_trained_with(model):
    checkpoint = replace(load_checkpoint(model), density=0.03)
    for sampler in ("fast", "published"):
        wishes = check(checkpoint, GenerateConfig(sampler=SAMPLERS[sampler]))
        assert wishes.process == SAMPLERS[sampler].process(density=0.03)
        assert wishes.process != SAMPLERS[sampler].process()


def test_a_published_folder_has_to_be_imported(model, tmp_path):
    for given in (model.parent / "run", model.parent / "run" / "last.ckpt"):
        result = run("generate", "--model", given, "--num", 1, "--out", tmp_path / "x")
        assert result.exit_code == 2
        assert f"import-checkpoint {given} --out" in " ".join(result.stderr.split())


def test_an_interrupted_run_of_the_published_sampler_goes_on_as_if_it_had_not_been(model, tmp_path):
    """Crystals depend on their batch there: batches are those of the whole run, and their size belongs to it."""
    (tmp_path / "c.yaml").write_text("batch_pairs: 50\n")
    common = ["generate", "--model", model, "--sampler", "published", "--steps", 3, "--num-atoms", "3-5", "--quiet"]

    def draw(out, *options):
        return run(*common, "--num", 7, "--config", tmp_path / "c.yaml", *options, "--out", tmp_path / out)

    def lines(out):
        found = map(json.loads, (tmp_path / out / "generated.jsonl").read_text().splitlines()[1:])
        return {line["index"]: line for line in found}

    assert draw("whole").exit_code == 0
    whole = (tmp_path / "whole" / "generated.jsonl").read_text().splitlines(keepends=True)
    for kept in (2, 4, 5):
        (tmp_path / f"{kept}").mkdir()
        (tmp_path / f"{kept}" / "generated.jsonl").write_text("".join(whole[: 1 + kept]))
        assert draw(f"{kept}").exit_code == 0
        assert lines(f"{kept}") == lines("whole")
    (tmp_path / "c.yaml").write_text("batch_pairs: 10000\n")
    refused = draw("whole")
    assert refused.exit_code == 2
    assert "batch_pairs 50, now 10000" in " ".join(refused.stderr.split())
    assert draw("other").exit_code == 0
    assert lines("other") != lines("whole")  # so that the comparison above says something
    more = run(*common, "--num", 8, "--config", tmp_path / "c.yaml", "--out", tmp_path / "other")
    assert "num 7, now 8" in " ".join(more.stderr.split())


def test_a_folder_of_the_name_is_another_model(model, tmp_path, monkeypatch):
    """It is imported for whoever stands beside it, and does not take the name from anybody else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    shutil.copytree(model.parent / "run", here / "space_group")
    monkeypatch.chdir(here)
    said = run("info", "--model", "space_group")
    assert said.exit_code == 0, said.output
    assert "another file than" in " ".join(said.stderr.split())
    kept = tmp_path / "cache" / "druse"
    assert not (kept / "space_group").exists()
    assert len(list((kept / "folders").glob("space_group-*"))) == 1
