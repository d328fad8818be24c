"""Crystals of chosen elements: all comply, the same seed gives the same ones, and bad requests are one sentence."""

import json

import numpy as np
import pytest
from druse_crystal.settings import read_settings
from druse_generate.cli import app
from druse_generate.config import GenerateConfig, SamplerConfig, with_options
from druse_generate.generating import allowed_sizes, generate
from druse_scores import load_checkpoint
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=6, corrector_steps=1, remask=1.0)


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={1: 5, 2: 30, 4: 50, 6: 15}, elements=(3, 8, 11, 17, 26))


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def drawn(model, **options):
    config = GenerateConfig(num=40, seed=3, sampler=SHORT, **options)
    draws = [draw for batch in generate(load_checkpoint(model), config) for draw in batch]
    assert sorted(draw.index for draw in draws) == list(range(40))
    return {draw.index: draw for draw in draws}


def elements(draw):
    return set(draw.crystal.atomic_numbers.tolist())


def test_only_these_elements(model):
    draws = drawn(model, elements="O-Li-Fe")
    assert all(elements(draw) <= {3, 8, 26} for draw in draws.values())
    assert {len(elements(draw)) for draw in draws.values()} == {1, 2, 3}
    assert {draw.draws for draw in draws.values()} == {1}


def test_all_of_a_chemical_system(model):
    small, large = (drawn(model, chemical_system="Li-Fe-O", batch_pairs=pairs) for pairs in (20, 100000))
    assert all(elements(draw) == {3, 8, 26} for draw in small.values())
    assert {draw.crystal.num_atoms for draw in small.values()} == {4, 6}
    assert max(draw.draws for draw in small.values()) > 1
    for index, draw in small.items():  # the batch makes no difference, neither to the crystal nor to the draws it took
        other = large[index]
        assert other.draws == draw.draws
        assert np.array_equal(draw.crystal.atomic_numbers, other.crystal.atomic_numbers)
        assert np.abs(draw.crystal.lattice - other.crystal.lattice).max() < 1e-3


def test_what_is_complete_at_once_is_not_drawn_again(model):
    once, again = drawn(model, chemical_system="Li-O-Fe", max_draws=1), drawn(model, chemical_system="Li-Fe-O")
    for index, draw in once.items():
        if draw.crystal is None:
            assert draw.message == "none of 1 draws holds all of Li-O-Fe"
            assert again[index].draws > 1
        else:
            assert again[index].draws == 1
            assert np.array_equal(again[index].crystal.frac_coords, draw.crystal.frac_coords)
    assert 0 < sum(draw.crystal is None for draw in once.values()) < 40


def test_files_and_continuation(model, tmp_path):
    common = ["--steps", 4, "--model", model, "--chemical-system", "O-Li"]
    first = run("generate", "--num", 4, *common, "--out", tmp_path / "a", "--json")
    assert first.exit_code == 0, first.output
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["settings"]["generate"]["chemical_system"] == "O-Li"
    assert manifest["results"]["chemical_systems"] == {"Li-O": 4}
    assert manifest["results"]["drawn"] >= 4
    journal = tmp_path / "a" / "generated.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    again = run("generate", "--num", 9, *common, "--out", tmp_path / "a")
    assert again.exit_code == 0, again.output
    whole = run("generate", "--num", 9, *common, "--out", tmp_path / "b", "--json")

    def numbers(folder):
        lines = map(json.loads, (tmp_path / folder / "generated.jsonl").read_text().splitlines()[1:])
        return {line["index"]: (line["crystal"]["atomic_numbers"], line.get("draws", 1)) for line in lines}

    assert numbers("a") == numbers("b")
    assert json.loads(whole.stdout)["results"]["drawn"] == sum(draws for _, draws in numbers("b").values())
    other = run("generate", "--num", 4, "--steps", 4, "--model", model, "--out", tmp_path / "a")
    assert other.exit_code == 2
    assert "chemical_system O-Li, now None" in other.stderr


def test_runs_without_a_restriction_have_the_settings_of_before(model, tmp_path):
    assert run("generate", "--num", 1, "--steps", 4, "--model", model, "--out", tmp_path).exit_code == 0
    settings = json.loads((tmp_path / "generated.jsonl").read_text().splitlines()[0])["settings"]
    assert settings.keys() == {"seed", "num_atoms", "sampler", "model"}


def test_settings_and_options(tmp_path, model):
    path = tmp_path / "settings.yaml"
    path.write_text("elements: Li-O\nnum: 2\n")
    settings = read_settings(path, GenerateConfig)
    assert settings.allowed == (3, 8)
    assert settings.required == ()
    changed = with_options(settings, chemical_system="Na-Cl")
    assert changed.allowed == changed.required == (11, 17)
    assert with_options(settings, num=5).allowed == (3, 8)
    assert allowed_sizes(load_checkpoint(model), changed).tolist() == [2, 4, 6]
    path.write_text("elements: [Li\n")
    assert run("generate", "--config", path, "--model", model, "--out", tmp_path / "x").exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--elements", "Li-Xx"], "'Xx' in 'Li-Xx' is no element"),
        (["--elements", ""], "is no element"),
        (["--elements", "Li-Li"], "more than once"),
        (["--elements", "Li-K"], "no crystal that the model was trained on holds K"),
        (["--elements", "Li-Md"], "no class for Md"),
        (["--chemical-system", "Li2O"], "'Li2O' in 'Li2O' is no element"),
        (["--chemical-system", "Li-O-Fe", "--num-atoms", "2"], "at least 3 atoms, and at most 2"),
        (["--chemical-system", "Li-O", "--elements", "Li-O"], "if only these may occur"),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, options, words):
    result = run("generate", "--out", tmp_path / "x", "--model", model, *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()
