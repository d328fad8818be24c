"""Structures to start from: what is kept is kept to the last digit, and bad requests are one sentence."""

import json
from collections import Counter

import numpy as np
import pytest
from ase.build import make_supercell
from ase.io import write
from druse_crystal import Crystal
from druse_crystal.convert import to_ase
from druse_crystal.io import read_crystals, write_cif, write_extxyz
from druse_crystal.symmetry import space_group
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.composition_request import CompositionRequest
from druse_generate.config import GenerateConfig, SamplerConfig, SymmetryRequest
from druse_generate.generating import generate
from druse_generate.seed_request import SeedRequest
from druse_scores import load_checkpoint
from typer.testing import CliRunner

LI, OX, NA, CL, FE = 3, 8, 11, 17, 26
SHORT = SamplerConfig(steps=20, corrector_steps=1)
HOST = Crystal(  # an invented oxide with two iron sites, in a cell that is no symmetric matrix
    lattice=np.array([[3.1, 0, 0], [0.4, 4.2, 0], [0.2, -0.3, 5.3]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.1, 0.2], [0.1, 0.5, 0.8], [0.02, 0.9, 0.5]]),
    atomic_numbers=np.array([FE, FE, OX, OX, LI]),
)


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={1: 5, 2: 30, 4: 50, 5: 10, 6: 15, 8: 3}, elements=(LI, OX, NA, CL, FE))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    path = tmp_path_factory.mktemp("host") / "host.extxyz"
    write_extxyz(path, [HOST])
    return path


def drawn(model, host, *, num=12, num_atoms=None, composition=None, symmetric=False, **request):
    config = GenerateConfig(
        num=num,
        seed=3,
        sampler=SHORT,
        num_atoms=num_atoms,
        composition=composition or CompositionRequest(),
        symmetry=SymmetryRequest(symmetric=symmetric),
        seed_structure=SeedRequest(structure=host, **request),
    )
    draws = [draw for batch in generate(check(load_checkpoint(model), config), range(config.num)) for draw in batch]
    found = [draw.crystal for draw in sorted(draws, key=lambda draw: draw.index)]
    assert len(found) == num
    assert None not in found
    return found


def apart(a, b):
    difference = a - b
    return np.abs(difference - np.rint(difference))


def test_sites_and_lattice_are_kept_and_the_rest_grows(model, host):
    found = drawn(model, host, keep="lattice, species:O")
    for crystal in found:
        assert np.allclose(crystal.lattice, HOST.lattice, atol=1e-7)
        assert apart(crystal.frac_coords, HOST.frac_coords)[2:4].max() < 1e-6
        assert crystal.atomic_numbers[2:4].tolist() == [OX, OX]
    free = np.array([apart(crystal.frac_coords, HOST.frac_coords)[[0, 1, 4]].max() for crystal in found])
    assert free.min() > 0.01
    assert len({tuple(crystal.atomic_numbers.tolist()) for crystal in found}) > 3


def test_more_atoms_than_the_structure_has(model, host):
    found = drawn(model, host, keep="sites:2-4", num_atoms=(6, 8), composition=CompositionRequest(counts="O:3"))
    assert {crystal.num_atoms for crystal in found} == {6, 8}
    for crystal in found:
        assert crystal.atomic_numbers[:3].tolist() == [OX, OX, LI]
        assert apart(crystal.frac_coords[:3], HOST.frac_coords[2:]).max() < 1e-6
        assert Counter(crystal.atomic_numbers.tolist())[OX] == 3


def test_only_the_species_or_only_the_coordinates(model, host):
    for crystal in drawn(model, host, keep="species"):
        assert np.array_equal(crystal.atomic_numbers, HOST.atomic_numbers)
        assert apart(crystal.frac_coords, HOST.frac_coords).max() > 0.05
    found = drawn(model, host, keep="coordinates")
    assert all(apart(crystal.frac_coords, HOST.frac_coords).max() < 1e-6 for crystal in found)
    assert len({tuple(crystal.atomic_numbers.tolist()) for crystal in found}) > 3


def test_variations_are_near_for_small_strengths(model, host):
    moved = []
    for strength in (0.02, 0.4, 1.0):
        found = drawn(model, host, strength=strength)
        assert all(crystal.num_atoms == 5 for crystal in found)
        moved.append(np.mean([apart(crystal.frac_coords, HOST.frac_coords).mean() for crystal in found]))
    assert moved[0] < 0.02 < moved[1] < moved[2]


def test_substitution_takes_other_sites_each_time_and_leaves_the_rest(model, host):
    found = drawn(model, host, substitute="Fe:1:Na-Cl", num=24)
    for crystal in found:
        assert np.allclose(crystal.lattice, HOST.lattice, atol=1e-7)
        assert apart(crystal.frac_coords, HOST.frac_coords).max() < 1e-6
        assert crystal.atomic_numbers[2:].tolist() == [OX, OX, LI]
        assert sorted(z in (NA, CL) for z in crystal.atomic_numbers[:2].tolist()) == [False, True]
    assert {tuple(z == FE for z in crystal.atomic_numbers[:2].tolist()) for crystal in found} == {
        (True, False),
        (False, True),
    }
    varied = drawn(model, host, substitute="Fe:2:Na", strength=0.3)
    assert all(crystal.atomic_numbers.tolist() == [NA, NA, OX, OX, LI] for crystal in varied)
    assert all(apart(crystal.frac_coords, HOST.frac_coords).max() > 1e-4 for crystal in varied)


def test_variations_within_the_symmetry_of_the_structure(model, tmp_path):
    rutile = Crystal(
        lattice=np.diag([4.6, 4.6, 2.96]),
        frac_coords=np.array(
            [[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]
        ),
        atomic_numbers=np.array([FE, FE, OX, OX, OX, OX]),
    )
    write_cif(tmp_path / "rutile.cif", rutile, symprec=None)
    for crystal in drawn(model, tmp_path / "rutile.cif", strength=0.15, symmetric=True):
        assert space_group(crystal, symprec=0.01).number == 136
        assert np.abs(crystal.lattice - rutile.lattice).max() > 1e-3


def test_variations_keep_what_was_asked_of_the_composition(model, host):
    """Atoms of the structure that are not allowed, or too many, do not survive, however small the strength."""
    for crystal in drawn(model, host, strength=0.05, composition=CompositionRequest(elements="Na-Cl-O")):
        assert set(crystal.atomic_numbers.tolist()) <= {NA, CL, OX}
    for crystal in drawn(model, host, strength=0.2, composition=CompositionRequest(exclude="Fe")):
        assert FE not in crystal.atomic_numbers
    for crystal in drawn(model, host, strength=0.2, composition=CompositionRequest(counts="O:4,Fe:1")):
        assert Counter(crystal.atomic_numbers.tolist()) == {OX: 4, FE: 1}
    there = Counter(HOST.atomic_numbers.tolist())
    for crystal in drawn(model, host, strength=0.001, composition=CompositionRequest(include="Cl")):
        found = Counter(crystal.atomic_numbers.tolist())
        assert (found & there).total() == 4  # one atom makes room
        assert found[CL] == 1
    kept = drawn(model, host, keep="species:O", num_atoms=(4, 8), composition=CompositionRequest(formula="LiO"))
    assert {crystal.num_atoms for crystal in kept} == {4, 6, 8}
    assert all(set(Counter(crystal.atomic_numbers.tolist()).values()) == {crystal.num_atoms // 2} for crystal in kept)


def test_sites_that_start_without_an_element_are_said(model, host):
    def warnings(**composition):
        config = GenerateConfig(
            composition=CompositionRequest(**composition), seed_structure=SeedRequest(structure=host, strength=0.1)
        )
        return " ".join(check(load_checkpoint(model), config).warnings)

    assert "holds Fe, which no new atom may be" in warnings(exclude="Fe")
    assert "start without an element" not in warnings()


def test_all_sites_of_an_element_can_go(model, host):
    for request in (CompositionRequest(exclude="Fe"), CompositionRequest(chemical_system="Na-O-Li")):
        for crystal in drawn(model, host, substitute="Fe:2:Na", composition=request, num=3):
            assert crystal.atomic_numbers.tolist() == [NA, NA, OX, OX, LI]


@pytest.mark.parametrize(
    ("cell", "request_", "words"),
    [
        (np.eye(3), {"strength": 0.3}, ""),
        (np.eye(3), {"keep": "species"}, ""),
        (np.eye(3), {"keep": "lattice,species:O"}, ""),
        (np.eye(3), {"keep": "species:O"}, "the lattice is not"),
        (np.array([[1, 0, 0], [3, 1, 0], [0, 0, 1]]), {"strength": 0.3}, "its reduced cell has edges of up to 5.3 Å"),
        (np.diag([2, 1, 1]), {"strength": 0.3}, "has 10 atoms, its primitive cell has 5"),
        (np.diag([2, 1, 1]), {"keep": "species"}, ""),
    ],
)
def test_a_cell_that_the_model_did_not_learn_is_said(tmp_path, cell, request_, words):
    atoms = make_supercell(to_ase(HOST), cell)
    write(tmp_path / "host.extxyz", atoms)
    seed = SeedRequest(structure=tmp_path / "host.extxyz", **request_).read()
    assert seed is not None
    assert words in seed.warning
    assert bool(seed.warning) == bool(words)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_knows_the_structure_by_its_content(model, host, tmp_path):
    common = ["generate", "--num", 2, "--steps", 4, "--model", model, "--out", tmp_path / "a", "--keep", "species:O"]
    first = run(*common, "--seed-structure", host, "--json")
    assert first.exit_code == 0, first.output
    request = json.loads(first.stdout)["settings"]["generate"]["seed_structure"]
    assert request["keep"] == "species:O"
    assert len(request["hash"]) == 64
    assert len([r for r in read_crystals(tmp_path / "a" / "crystals.extxyz") if r.crystal]) == 2
    assert run(*common, "--seed-structure", host).exit_code == 0
    other = tmp_path / "host.extxyz"
    write_extxyz(other, [HOST.replace(lattice=1.01 * HOST.lattice)])
    changed = run(*common, "--seed-structure", other)
    assert changed.exit_code == 2
    assert "seed_structure" in changed.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "lattice"], "without a structure: give one"),
        (["--seed-structure", "HOST"], "say what to keep of it"),
        (["--seed-structure", "nowhere.cif", "--keep", "lattice"], "nowhere.cif"),
        (["--seed-structure", "HOST", "--keep", "soul"], "'soul' is nothing that can be kept"),
        (["--seed-structure", "HOST", "--keep", "species:Cl"], "Cl was to be kept"),
        (["--seed-structure", "HOST", "--keep", "sites:3-7"], "has sites 0 to 4"),
        (["--seed-structure", "HOST", "--keep", "species:O", "--exclude", "O"], "O is kept of the structure"),
        (["--seed-structure", "HOST", "--keep", "species:O", "--space-group", "225"], "the structure has its own"),
        (["--seed-structure", "HOST", "--keep", "lattice", "--symmetric"], "leave one of them out"),
        (["--seed-structure", "HOST", "--keep", "species", "--num-atoms", "4"], "5 atoms are kept, and cells of 4"),
        (["--seed-structure", "HOST", "--keep", "", "--strength", "0.2"], "'' is nothing that can be kept"),
        (["--seed-structure", "HOST", "--substitute", ""], "'' is no substitution"),
        (["--seed-structure", "WIDE", "--strength", "0.2"], "the lattice to start from has"),
        (["--seed-structure", "HOST", "--strength", "0"], "strength is 0.0"),
        (["--seed-structure", "HOST", "--strength", "0.3", "--num-atoms", "6"], "as many atoms as it, 5"),
        (["--seed-structure", "HOST", "--strength", "0.3", "--formula", "NaCl"], "cells of 5 atoms cannot hold NaCl"),
        (["--seed-structure", "HOST", "--substitute", "Fe"], "'Fe' is no substitution: write Fe:2:Mn-Co"),
        (["--seed-structure", "HOST", "--substitute", "Fe:1:Fe"], "replaces Fe by itself"),
        (["--seed-structure", "HOST", "--substitute", "Fe:3:Na"], "3 Fe sites were to be substituted"),
        (["--seed-structure", "HOST", "--substitute", "Fe:1:K"], "no crystal that the model was trained on holds K"),
        (["--seed-structure", "HOST", "--substitute", "Fe:1:Na", "--exclude", "Na"], "Na is to be substituted in and"),
        (["--seed-structure", "HOST", "--substitute", "Fe:1:Na", "--keep", "lattice"], "all else is kept anyway"),
        (
            ["--seed-structure", "HOST", "--substitute", "Fe:1:Na", "--include", "Cl"],
            "neither kept of the structure",
        ),
        (["--seed-structure", "HOST", "--substitute", "Fe:1:Na", "--counts", "Fe:2"], "exclude each other"),
        (["--seed-structure", "HOST", "--keep", "species", "--counts", "O:3"], "exclude each other"),
        (["--seed-structure", "LARGE", "--strength", "0.3"], "has 7 atoms, the model knows cells of 1 to 8"),
        (["--seed-structure", "FOREIGN", "--keep", "species"], "holds Te, and no crystal"),
        (["--seed-structure", "FOREIGN", "--strength", "0.3"], "holds Te, and no crystal"),
        (["--seed-structure", "ONE SPOT", "--keep", "species"], "two of its atoms are 0 Å apart"),
        (["--seed-structure", "NARROW", "--keep", "lattice"], "room for 1 to 3 atoms, and cells of 5 to 5"),
        (["--seed-structure", "WIDE", "--keep", "lattice"], "ask for other numbers of atoms, or correct the lattice"),
    ],
)
def test_bad_requests_are_one_sentence(model, host, tmp_path, options, words):
    large, foreign = tmp_path / "large.extxyz", tmp_path / "foreign.extxyz"
    places = np.random.default_rng(0).random((7, 3))
    write_extxyz(large, [HOST.replace(frac_coords=places, atomic_numbers=np.full(7, OX))])
    write_extxyz(foreign, [HOST.replace(atomic_numbers=np.array([FE, FE, 52, OX, LI]))])
    files = {"HOST": host, "LARGE": large, "FOREIGN": foreign}
    for name, changed in {
        "ONE SPOT": HOST.replace(frac_coords=np.zeros((5, 3))),
        "NARROW": HOST.replace(lattice=0.6 * HOST.lattice),
        "WIDE": HOST.replace(lattice=4 * HOST.lattice),
    }.items():
        files[name] = tmp_path / f"{name}.extxyz"
        write_extxyz(files[name], [changed])
    result = run("generate", "--out", tmp_path / "x", "--model", model, *[files.get(o, o) for o in options])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()
