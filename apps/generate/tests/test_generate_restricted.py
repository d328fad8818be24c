"""Crystals of chosen elements: all comply, the same seed gives the same ones, and bad requests are one sentence."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from druse_crystal.neighbors import min_distance
from druse_crystal.settings import read_settings
from druse_crystal.symmetry import space_group
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.composition_request import CompositionRequest
from druse_generate.config import MODEL, SAMPLERS, GenerateConfig, SamplerConfig, SymmetryRequest, with_options
from druse_generate.generating import generate
from druse_scores import load_checkpoint
from typer.testing import CliRunner

LI, OX, NA, FE = 3, 8, 11, 26
SHORT = SamplerConfig(steps=6, corrector_steps=1, remask=1.0)


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={1: 5, 2: 30, 4: 50, 6: 15}, elements=(3, 8, 11, 17, 26))


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def drawn(model, *, num_atoms=None, batch_pairs=12000, symmetry=SymmetryRequest(), **composition):
    config = GenerateConfig(
        num=40,
        seed=3,
        sampler=SHORT,
        num_atoms=num_atoms,
        batch_pairs=batch_pairs,
        composition=CompositionRequest(**composition),
        symmetry=symmetry,
    )
    draws = [draw for batch in generate(check(load_checkpoint(model), config), range(config.num)) for draw in batch]
    assert sorted(draw.index for draw in draws) == list(range(40))
    return {draw.index: draw for draw in draws}


def elements(draw):
    return set(draw.crystal.atomic_numbers.tolist())


def counts(draw):
    return Counter(draw.crystal.atomic_numbers.tolist())


def test_none_of_an_element_that_the_formula_does_not_have(model):
    draws = drawn(model, formula="Li₂O", counts="Fe:0")
    assert all(elements(draw) == {LI, OX} and counts(draw)[LI] == 2 * counts(draw)[OX] for draw in draws.values())


def test_only_these_elements(model):
    draws = drawn(model, elements="O-Li-Fe")
    assert all(elements(draw) <= {LI, OX, FE} for draw in draws.values())
    assert {len(elements(draw)) for draw in draws.values()} == {1, 2, 3}


def test_all_of_a_chemical_system(model):
    small, large = (drawn(model, chemical_system="Li-Fe-O", batch_pairs=pairs) for pairs in (20, 100000))
    assert all(elements(draw) == {LI, OX, FE} for draw in small.values())
    assert {draw.crystal.num_atoms for draw in small.values()} == {4, 6}
    for index, draw in small.items():  # the batch makes no difference
        other = large[index]
        assert np.array_equal(draw.crystal.atomic_numbers, other.crystal.atomic_numbers)
        assert np.abs(draw.crystal.lattice - other.crystal.lattice).max() < 1e-3


def test_a_formula_in_one_and_several_units(model):
    draws = drawn(model, formula="LiO")
    assert all(counts(draw) in ({LI: n, OX: n} for n in (1, 2, 3)) for draw in draws.values())
    assert {draw.crystal.num_atoms for draw in draws.values()} == {2, 4, 6}
    assert {counts(draw)[FE] for draw in drawn(model, formula="Fe4Li2").values()} == {4}


def test_the_published_sampler_keeps_formula_and_group_too():
    config = GenerateConfig(
        num=4,
        sampler=replace(SAMPLERS["published"], steps=6),
        composition=CompositionRequest(formula="LiO"),
        symmetry=SymmetryRequest(space_group=225),
    )
    draws = [draw for batch in generate(check(load_checkpoint(MODEL), config), range(4)) for draw in batch]
    assert all(set(counts(draw)) == {LI, OX} and counts(draw)[LI] == counts(draw)[OX] for draw in draws)
    groups = {space_group(draw.crystal).number for draw in draws if draw.crystal is not None}
    assert groups <= {221, 225}  # of group 225 in its own cell, or with the translations of a smaller one


def test_included_excluded_and_counted_elements(model):
    assert all(elements(draw) >= {LI, FE} for draw in drawn(model, include="Li-Fe").values())
    assert all(LI not in elements(draw) for draw in drawn(model, exclude="Li").values())
    draws = drawn(model, counts="Fe:1,O:2-3", exclude="Na")
    assert all(counts(draw)[FE] == 1 and 2 <= counts(draw)[OX] <= 3 for draw in draws.values())
    assert all(NA not in elements(draw) for draw in draws.values())
    assert any(elements(draw) - {FE, OX} for draw in draws.values())
    both = drawn(model, chemical_system="Li-O", counts="Li:3-")
    assert all(elements(draw) == {LI, OX} and counts(draw)[LI] >= 3 for draw in both.values())


def test_a_space_group_by_construction(model):
    """With a network that knows nothing: atoms that do not overlap have the group, or one that contains it."""
    draws = drawn(model, symmetry=SymmetryRequest(space_group=123), num_atoms=(2, 6))
    loose = [space_group(draw.crystal, symprec=0.01).number for draw in draws.values() if sound(draw)]
    assert len(loose) > 10
    assert all(number in (123, 139, 221, 225, 229) for number in loose)


def test_symmetry_of_known_crystals_with_a_formula(model):
    draws = drawn(model, symmetry=SymmetryRequest(symmetric=True), formula="LiO", num_atoms=(4, 6))
    assert all(counts(draw)[LI] == counts(draw)[OX] for draw in draws.values())
    groups = [space_group(draw.crystal, symprec=0.01).number for draw in draws.values() if sound(draw)]
    assert len(groups) > 10
    assert 1 not in groups


def test_symmetry_of_known_crystals_alone(model):
    """Sites are found one by one; a seed means the same ones."""
    first, again = (drawn(model, symmetry=SymmetryRequest(symmetric=True)) for _ in range(2))
    assert {draw.crystal.num_atoms for draw in first.values()} <= {1, 2, 4, 6}
    assert all(np.array_equal(first[i].crystal.atomic_numbers, again[i].crystal.atomic_numbers) for i in first)
    groups = [space_group(draw.crystal, symprec=0.01).number for draw in first.values() if sound(draw)]
    assert groups.count(1) < len(groups) / 4


def sound(draw):
    return min_distance(draw.crystal) > 0.3


def test_files_and_continuation(model, tmp_path):
    common = ["--steps", 4, "--model", model, "--chemical-system", "O-Li"]
    first = run("generate", "--num", 4, *common, "--out", tmp_path / "a", "--json")
    assert first.exit_code == 0, first.output
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["settings"]["generate"]["composition"]["chemical_system"] == "O-Li"
    assert manifest["results"]["chemical_systems"] == {"Li-O": 4}
    journal = tmp_path / "a" / "generated.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    again = run("generate", "--num", 9, *common, "--out", tmp_path / "a")
    assert again.exit_code == 0, again.output
    whole = run("generate", "--num", 9, *common, "--out", tmp_path / "b", "--json")

    def numbers(folder):
        lines = map(json.loads, (tmp_path / folder / "generated.jsonl").read_text().splitlines()[1:])
        return {line["index"]: line["crystal"]["atomic_numbers"] for line in lines}

    assert numbers("a") == numbers("b")
    assert json.loads(whole.stdout)["results"]["crystals"] == 9
    other = run("generate", "--num", 4, "--steps", 4, "--model", model, "--out", tmp_path / "a")
    assert other.exit_code == 2
    assert "composition" in other.stderr


def test_runs_without_a_restriction_have_the_settings_of_before(model, tmp_path):
    assert run("generate", "--num", 1, "--steps", 4, "--model", model, "--out", tmp_path).exit_code == 0
    settings = json.loads((tmp_path / "generated.jsonl").read_text().splitlines()[0])["settings"]
    assert settings.keys() == {"seed", "num_atoms", "sampler", "model"}


def test_settings_and_options(tmp_path, model):
    path = tmp_path / "settings.yaml"
    path.write_text("composition: {elements: Li-O, exclude: Fe}\nnum: 2\n")
    settings = read_settings(path, GenerateConfig)
    assert settings.composition.allowed(range(100)) == (LI, OX)
    assert settings.composition.required == ()
    changed = with_options(settings, chemical_system="Na-Cl")
    assert changed.composition.allowed(()) == changed.composition.required == (NA, 17)
    assert changed.composition.exclude == "Fe"
    assert with_options(settings, num=5).composition == settings.composition
    assert check(load_checkpoint(model), changed).sizes == (2, 4, 6)
    assert with_options(settings, symmetric=True, space_group=62).symmetry == SymmetryRequest(
        space_group=62, symmetric=True
    )
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
        (["--chemical-system", "Li-O-Fe", "--num-atoms", "2"], "at least 3 atoms, and cells of 2 atoms"),
        (["--chemical-system", "Li-O", "--elements", "Li-O"], "if only these may occur"),
        (["--chemical-system", "Li-O", "--formula", "Li2O"], "or a formula if their numbers are fixed"),
        (["--formula", "Li2O0.5"], "'Li2O0.5' is no formula with whole numbers"),
        (["--formula", "water"], "'water' is no formula"),
        (["--formula", "Li+O"], "such as Li2FeO4: leave out charges and hyphens"),
        (["--formula", "Fe0O"], "leave out elements of which there is no atom"),
        (["--formula", "D2O"], "write D and T as H"),
        (["--formula", "Fe2O3·H2O"], "with the water in it"),
        (["--formula", "LiO", "--counts", "Li:0"], "at least 1 and at most 0 atoms of Li"),
        (["--formula", "Li2Fe3O4"], "cells of 1 to 6 atoms cannot hold Li2Fe3O4: they have to be of 9, 18, 27"),
        (["--formula", "Li2O", "--num-atoms", "4"], "cells of 4 atoms cannot hold Li2O"),
        (["--formula", "Li2O", "--counts", "Li:3"], "Li with 3 to 3 atoms and formula Li2O"),
        (["--formula", "KCl"], "no crystal that the model was trained on holds K"),
        (["--include", "Li-O", "--exclude", "O"], "O was asked for and excluded at once"),
        (["--elements", "Li-O", "--include", "Fe"], "Fe was asked for, but Li-O does not have it"),
        (["--elements", "Li-O", "--exclude", "Li-O"], "no element is left: all of Li-O are excluded"),
        (["--counts", "Fe"], "'Fe' is no count: write Fe:2"),
        (["--counts", "Fe:2-1"], "'Fe:2-1' is no count"),
        (["--counts", "Fe:1,Fe:2"], "Fe stands in 'Fe:1,Fe:2' more than once"),
        (["--counts", "Fe:7-"], "at least 7 atoms, and cells of 1 to 6 atoms"),
        (["--elements", "Li-O", "--counts", "Li:0-1,O:1", "--num-atoms", "4"], "at most 2 atoms, and cells of 4 atoms"),
        (["--space-group", "231"], "there is no space group 231"),
        (["--space-group", "230"], "space group 230 add up to 8, 12, 16, 20, 24, 28, ... atoms"),
        (
            ["--space-group", "225", "--formula", "LiO", "--num-atoms", "6"],
            "space group 225 share out 6 atoms over orbits",
        ),
        (
            ["--space-group", "194", "--counts", "Li:1", "--num-atoms", "4"],
            "cannot hold what was asked for (such as 4; 2+2)",
        ),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, options, words):
    result = run("generate", "--out", tmp_path / "x", "--model", model, *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()
