"""Generation from the command line: same seed, same crystals; interruptions; bad requests."""

import json
import shutil
import zipfile
from dataclasses import fields, replace
from inspect import signature

import numpy as np
import pytest
import torch
from druse_crystal.io import read_crystals
from druse_crystal.settings import read_settings
from druse_diffusion import AbsorbingD3PM, CrystalProcess, LatticeVP, WrappedVE, uniform_times
from druse_diffusion.published import published_process
from druse_generate import checking, options
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.config import MODEL, SAMPLERS, GenerateConfig, SamplerConfig, with_options
from druse_generate.generating import generate
from druse_scores import load_checkpoint
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=6, corrector_steps=1)


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={1: 5, 2: 30, 4: 50, 9: 15}, elements=(3, 8), provenance={"steps": 0})


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_same_seed_same_crystals_whatever_the_batch(model):
    checkpoint = load_checkpoint(model)
    results = []
    for pairs in (20, 100000):
        config = GenerateConfig(num=12, seed=5, sampler=SHORT, batch_pairs=pairs)
        draws = [draw for batch in generate(check(checkpoint, config), range(config.num)) for draw in batch]
        results.append({draw.index: draw.crystal for draw in draws})
    small, large = results
    assert {z for c in small.values() if c is not None for z in c.atomic_numbers.tolist()} == {3, 8}
    assert sorted(small) == sorted(large) == list(range(12))
    for index, crystal in small.items():
        other = large[index]
        assert (crystal is None) == (other is None)
        if crystal is not None and other is not None:
            assert np.array_equal(crystal.atomic_numbers, other.atomic_numbers)
            assert np.abs(crystal.lattice - other.lattice).max() < 1e-3
            difference = crystal.frac_coords - other.frac_coords
            assert np.abs(difference - difference.round()).max() < 1e-3
    another = GenerateConfig(num=12, seed=6, sampler=SHORT)
    others = {draw.index: draw.crystal for batch in generate(check(checkpoint, another), range(12)) for draw in batch}
    assert any(
        a is not None and b is not None and (a.num_atoms != b.num_atoms or not np.allclose(a.lattice, b.lattice))
        for a, b in ((small[i], others[i]) for i in range(12))
    )


def test_samplers_hand_their_temperatures_on():
    config = SamplerConfig(
        temperature=0.5, lattice_temperature=0.7, cold_below=0.3, species_temperature=0.8, remask=0.2
    )
    assert config.process() == CrystalProcess(
        lattice=LatticeVP(temperature=0.7, cold_below=0.3),
        frac_coords=WrappedVE(temperature=0.5, cold_below=0.3),
        species=AbsorbingD3PM(temperature=0.8, remask=0.2),
    )
    assert [SAMPLERS[name].evaluations for name in ("fast", "quick", "paper")] == [400, 100, 2000]
    assert SAMPLERS["quick"].process() == SAMPLERS["fast"].process()
    assert SAMPLERS["paper"].process() == CrystalProcess()
    assert SAMPLERS["paper"].times == SAMPLERS["published"].times == uniform_times(1000)
    assert SAMPLERS["published"].process() == published_process(1000)
    assert with_options(GenerateConfig(), sampler="published", steps=50).sampler.process() == published_process(50)


def test_options_win_over_settings(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("num: 7\nnum_atoms: [2, 4]\nsampler: {steps: 30, species_temperature: 0.5}\n")
    settings = read_settings(path, GenerateConfig)
    assert settings.sampler == SamplerConfig(steps=30, species_temperature=0.5)
    changed = with_options(settings, num_atoms="3", temperature=0.0, steps=None)
    assert (changed.num, changed.num_atoms) == (7, (3, 3))
    assert changed.sampler == SamplerConfig(steps=30, species_temperature=0.5, temperature=0.0)
    assert with_options(settings, sampler="paper").sampler == SAMPLERS["paper"]


def test_a_crystal_that_explodes_is_a_failed_draw(model):
    wishes = check(load_checkpoint(model), GenerateConfig(num=6, sampler=SHORT))

    def wild(noisy, t, conditions=None):
        prediction = wishes.model(noisy, t, conditions)
        first = torch.arange(len(noisy)) == 0
        return replace(prediction, lattice=torch.where(first[:, None, None], 1e30, prediction.lattice))

    plain = {d.index: d for batch in generate(wishes, range(6)) for d in batch}
    drawn = {d.index: d for batch in generate(replace(wishes, model=wild), range(6)) for d in batch}
    lost = [index for index, draw in drawn.items() if draw.crystal is None and plain[index].crystal is not None]
    assert lost
    assert all("grew beyond all numbers" in drawn[index].message for index in lost)
    for index in set(drawn) - set(lost):
        kept, expected = drawn[index].crystal, plain[index].crystal
        if expected is not None:
            assert kept is not None
            assert np.array_equal(kept.lattice, expected.lattice)


def test_the_published_grid_in_settings(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("sampler: {grid: published, steps: 100}\n")
    with pytest.raises(ValueError, match="`sampler: published`, or all of temperature: 1"):
        read_settings(path, GenerateConfig)
    cold = "temperature: 1, lattice_temperature: 1, remask: 0"
    path.write_text(f"sampler: {{grid: published, steps: 100, corrector_steps: 1, {cold}}}\n")
    assert read_settings(path, GenerateConfig).sampler == replace(SAMPLERS["published"], steps=100)


def test_a_name_in_the_settings_stands_for_a_sampler(tmp_path):
    path = tmp_path / "settings.yaml"
    for name, sampler in SAMPLERS.items():
        path.write_text(f"sampler: {name}\n")
        settings = read_settings(path, GenerateConfig)
        assert settings == GenerateConfig(sampler=sampler)
        assert with_options(settings, steps=50).sampler.steps == 50
    path.write_text("sampler: slow\n")
    with pytest.raises(ValueError, match="sampler: sampler is 'slow', it must be one of fast, quick, predictor"):
        read_settings(path, GenerateConfig)


def test_mixed_precision_is_for_hardware_that_has_it(model, monkeypatch):
    checkpoint, config = load_checkpoint(model), GenerateConfig(num=2, sampler=SHORT)
    mixed = with_options(config, mixed_precision=True)

    def lattices(config):
        drawn = [draw for batch in generate(check(checkpoint, config), [0, 1]) for draw in batch]
        return np.stack([draw.crystal.lattice for draw in drawn if draw.crystal is not None])

    monkeypatch.setattr(checking, "has_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="no instructions for products of bfloat16"):
        check(checkpoint, mixed)
    full = lattices(config)
    monkeypatch.setattr(checking, "has_bfloat16", lambda device: True)
    less = lattices(mixed)
    assert checkpoint.network.mixed_precision
    assert not np.array_equal(less, full)
    assert less == pytest.approx(full, rel=0.2, abs=0.2)
    assert np.array_equal(lattices(config), full)
    assert not checkpoint.network.mixed_precision


def test_every_option_is_a_setting():
    config = GenerateConfig()
    sections = (config.composition, config.symmetry, config.seed_structure, config.properties, config.steering)
    known = {f.name for section in (*sections, config.sampler) for f in fields(section)}
    known |= set(signature(with_options).parameters)
    assert not set(signature(options._request).parameters) - known


def test_sizes_follow_the_training_data(model):
    checkpoint = load_checkpoint(model)

    def drawn(config, number):
        return np.array([plan.num_atoms for plan in check(checkpoint, config).plans(range(number))])

    sizes = drawn(GenerateConfig(), 4000)
    for n, count in checkpoint.num_atoms.items():
        assert (sizes == n).mean() == pytest.approx(count / 100, abs=0.03)
    assert set(drawn(GenerateConfig(num_atoms=(2, 4)), 50).tolist()) <= {2, 4}


def test_files_and_continuation(model, tmp_path):
    first = run("generate", "--num", 3, "--steps", 4, "--model", model, "--out", tmp_path / "a", "--json")
    assert first.exit_code == 0, first.output
    facts = json.loads(first.stdout)
    assert facts["results"]["requested"] == 3
    # more of the same run: the first three are taken as they are, also when the last line was cut off
    journal = tmp_path / "a" / "generated.jsonl"
    before = journal.read_text().splitlines()
    journal.write_bytes(journal.read_bytes()[:-20])
    assert run("generate", "--num", 5, "--steps", 4, "--model", model, "--out", tmp_path / "a").exit_code == 0
    assert run("generate", "--num", 5, "--steps", 4, "--model", model, "--out", tmp_path / "b").exit_code == 0

    def drawn(folder):
        lines = (tmp_path / folder / "generated.jsonl").read_text().splitlines()[1:]
        return {line["index"]: line["crystal"] for line in map(json.loads, lines)}

    a, b = drawn("a"), drawn("b")
    assert sorted(a) == sorted(b) == list(range(5))
    assert a[json.loads(before[1])["index"]] == json.loads(before[1])["crystal"]
    for i in range(5):
        assert (a[i] is None) == (b[i] is None)
        if a[i] is not None:
            assert np.abs(np.array(a[i]["lattice"]) - np.array(b[i]["lattice"])).max() < 1e-3
    written = [result.crystal for result in read_crystals(tmp_path / "b" / "crystals.extxyz")]
    assert len(written) == sum(value is not None for value in b.values())
    with zipfile.ZipFile(tmp_path / "b" / "cifs.zip") as archive:
        assert len(archive.namelist()) == len(written)


def test_another_run_in_the_folder_is_refused(model, tmp_path):
    assert run("generate", "--num", 2, "--steps", 3, "--model", model, "--out", tmp_path / "a").exit_code == 0
    result = run("generate", "--num", 2, "--steps", 3, "--seed", 1, "--model", model, "--out", tmp_path / "a")
    assert result.exit_code == 2
    assert "seed 0, now 1" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num", "0"], "at least 1"),
        (["--num-atoms", "0"], "cells of 1 to 9 atoms: ask for"),
        (["--num-atoms", "500"], "cells of 500 atoms were asked for"),
        (["--num-atoms", "5-8"], "5 to 8 atoms: ask for a range with one of 1, 2, 4, 9"),
        (["--num-atoms", "many"], "such as 8"),
        (["--num-atoms", "9-2"], "not be larger"),
        (["--sampler", "slow"], "fast, quick, predictor, paper, published"),
        (["--sampler", "published", "--temperature", "0.5"], "the published sampler has no temperatures"),
        (["--steps", "1"], "at least 2 steps"),
        (["--seed", "-1"], "seed"),
        (["--temperature", "-1"], "not negative"),
        (["--temperature", "inf"], "must be a number"),
        (["--lattice-temperature", "-1"], "temperature of the lattice is -1.0"),
        (["--species-temperature", "0"], "must be positive"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--model", "/nowhere"], "nowhere does not exist: give a checkpoint folder, or the name of a published model"),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, options, words):
    arguments = ["generate", "--out", tmp_path / "x", *options]
    if "--model" not in options:
        arguments += ["--model", model]
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_foreign_checkpoint_is_refused(model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "weights.safetensors").write_bytes((broken / "weights.safetensors").read_bytes()[:100])
    result = run("generate", "--model", broken, "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "truncated" in result.stderr


def test_the_model_that_ships_is_whole_and_says_where_it_comes_from():
    result = run("info", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["num_atoms"] == [1, 20]
    assert facts["provenance"]["hours"] > 0
    assert {"He", "Ne", "Ar", "Kr", "Xe", "Tc", "Pm", "Po", "U"}.isdisjoint(facts["elements"])
    assert sum(f.stat().st_size for f in MODEL.iterdir()) < 20e6
    assert run("info").exit_code == 0


def test_the_model_that_ships_draws_valid_crystals():
    """A sanity check of the weights, not of their quality: atoms apart, cells of sensible density, known elements."""
    from ase.geometry import get_distances

    checkpoint = load_checkpoint(MODEL)
    config = with_options(GenerateConfig(), num=6, seed=1, num_atoms="3-6", steps=30)
    draws = [draw for batch in generate(check(checkpoint, config), range(config.num)) for draw in batch]
    crystals = [draw.crystal for draw in draws if draw.crystal is not None]
    assert len(crystals) == len(draws) == 6
    good = 0
    for crystal in crystals:
        _, d = get_distances(crystal.cart_coords, cell=crystal.lattice, pbc=True)
        apart = (d + 10 * np.eye(len(d))).min() > 1.0
        good += apart and 5 < crystal.volume / crystal.num_atoms < 60
        assert set(crystal.atomic_numbers.tolist()) <= set(checkpoint.elements)
    assert good >= 5
