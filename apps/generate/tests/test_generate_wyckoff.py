"""Wyckoff positions, chosen or random: the sites of textbook crystals, exactly the group asked for, bad requests."""

import json
import sys
from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import pytest
from druse_crystal import Crystal
from druse_crystal.convert import from_pymatgen
from druse_crystal.neighbors import min_distance
from druse_crystal.site_symmetry import find_site_symmetry
from druse_crystal.symmetry import contains_group, space_group, standardize
from druse_generate import random_sites as random_sites_module
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.composition_request import CompositionRequest
from druse_generate.config import GenerateConfig, SamplerConfig, SymmetryRequest
from druse_generate.generating import generate
from druse_generate.random_sites import orbit_sizes, random_sites
from druse_generate.site_choice import embedded_sites
from druse_generate.wyckoff_sites import HigherSymmetryError, chosen_positions, occupy, positions_of
from druse_scores import load_checkpoint
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=6, corrector_steps=1, remask=1.0)
SYSTEMS = (1, 2, 5, 9, 20, 22, 24, 39, 48, 79, 103, 141, 146, 158, 177, 196, 206, 227)  # all systems and centrings
TOO_LARGE = (203, 207, 209, 219, 222, 226, 228)  # have no crystal with up to 20 atoms in the primitive cell


@pytest.fixture(scope="module")
def model(save_tiny):
    return save_tiny(num_atoms={1: 5, 2: 10, 4: 30, 5: 20, 6: 20, 8: 15}, elements=(3, 8, 11, 17, 26))


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def wishes(model, *, space_group, wyckoff=None, seed=3, num_atoms=None, **composition):
    config = GenerateConfig(
        num=20,
        seed=seed,
        sampler=SHORT,
        num_atoms=num_atoms,
        composition=CompositionRequest(**composition),
        symmetry=SymmetryRequest(space_group=space_group, wyckoff=wyckoff),
    )
    return check(load_checkpoint(model), config)


def drawn(asked):
    crystals = [draw.crystal for batch in generate(asked, range(asked.config.num)) for draw in batch]
    assert len(crystals) == asked.config.num
    return crystals


def displaced(sites, seed=0):
    """Another crystal with these sites: ``origin + W P d``, and a lattice that the point group keeps."""
    rng = np.random.default_rng(seed)
    metric = np.eye(3) + 0.4 * (lower := rng.normal(size=(3, 3))) @ lower.T
    metric = np.mean([w.T @ metric @ w for w in sites.rotations], axis=0)
    shift = rng.random((sites.num_atoms, 3))[sites.orbit]
    along = sites.operations @ sites.free
    return Crystal(
        lattice=1000 * np.linalg.cholesky(metric),
        frac_coords=sites.origin + (along @ shift[..., None])[..., 0],
        atomic_numbers=np.unique(sites.orbit, return_inverse=True)[1] + 1,
    )


TEXTBOOK = {
    "fluorite": ("4a,8c", 225, Lattice.cubic(5.46), "Ca F", [(0, 0, 0), (0.25, 0.25, 0.25)]),
    "perovskite": ("1a,1b,3c", 221, Lattice.cubic(3.9), "Sr Ti O", [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5)]),
    "rutile": ("2a,4f", 136, Lattice.tetragonal(4.59, 2.96), "Ti O", [(0, 0, 0), (0.305, 0.305, 0)]),
    "wurtzite": ("b,b", 186, Lattice.hexagonal(3.82, 6.26), "Zn S", [(1 / 3, 2 / 3, 0), (1 / 3, 2 / 3, 0.375)]),
    "corundum": ("12c,18e", 167, Lattice.hexagonal(4.76, 12.99), "Al O", [(0, 0, 0.352), (0.306, 0, 0.25)]),
    "marcasite": ("a,g", 58, Lattice.orthorhombic(4.44, 5.42, 3.39), "Fe S", [(0, 0, 0), (0.2, 0.378, 0)]),
    "tenorite": ("4c,4e", 15, Lattice.monoclinic(4.68, 3.42, 5.13, 99.5), "Cu O", [(0.25, 0.25, 0), (0, 0.416, 0.25)]),
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_sites_of_textbook_crystals(name):
    """Cells, letters and coordinates as published, symmetry operations of pymatgen."""
    letters, number, lattice, elements, coordinates = TEXTBOOK[name]
    crystal = from_pymatgen(Structure.from_spacegroup(number, lattice, elements.split(), coordinates))
    chosen = chosen_positions(number, letters)
    for position, xyz in zip(chosen, coordinates, strict=True):
        apart = position.coordinates @ np.append(xyz, 1.0) - xyz
        assert np.abs(apart - apart.round()).max(-1).min() < 1e-9
    known = find_site_symmetry(standardize(crystal))
    sites = occupy(number, chosen, rng=np.random.default_rng(0))
    assert known is not None
    assert known.space_group == number
    assert freedom(sites) == freedom(known)
    assert len(sites.rotations) == len(known.rotations)


def freedom(sites):
    """Size and number of free coordinates of each orbit."""
    sizes = Counter(sites.orbit.tolist())
    return sorted((sizes[first], round(np.trace(sites.free[first]))) for first in sizes)


def test_all_ways_to_share_out_atoms():
    """Against all choices of positions, made one by one."""
    for number, atoms in ((2, 5), (47, 3), (194, 8), (225, 8)):
        positions = positions_of(number)
        choices = [
            choice
            for k in range(1, atoms + 1)
            for choice in combinations_with_replacement(range(len(positions)), k)
            if sum(positions[i].num_atoms for i in choice) == atoms
            and all(times == 1 or positions[i].free for i, times in Counter(choice).items())
        ]
        ways = list(orbit_sizes(positions, atoms))
        assert len(set(ways)) == len(ways)
        assert set(ways) == {tuple(sorted(positions[i].num_atoms for i in choice)) for choice in choices}


def check_random_sites(number):
    weights = dict.fromkeys(range(1, 21), 1.0)
    found = random_sites(number, weights, accept=lambda sizes: len(sizes) < 9, seed=0)
    assert found
    for sites in found:
        assert sites.space_group == number
        assert sites.num_atoms <= 20
        assert len(sites.orbit_sizes) < 9
        assert tuple(sorted(sites.orbit_sizes)) in set(orbit_sizes(positions_of(number), sites.num_atoms))
    exact = [space_group(displaced(sites, seed), symprec=0.1).number for seed, sites in enumerate(found)]
    assert exact.count(number) >= 0.7 * len(exact)  # some displacements are special by chance
    return found


@pytest.mark.parametrize("number", SYSTEMS)
def test_random_sites_have_exactly_the_group(monkeypatch, number):
    monkeypatch.setattr(random_sites_module, "_ARRANGEMENTS", 6)
    check_random_sites(number)


@pytest.mark.slow
def test_random_sites_of_every_group(monkeypatch):
    monkeypatch.setattr(random_sites_module, "_ARRANGEMENTS", 6)
    for number in range(1, 231):
        if number not in TOO_LARGE:
            check_random_sites(number)
            continue
        with pytest.raises(ValueError, match="have more symmetry"):
            check_random_sites(number)
        general = [positions_of(number)[0], positions_of(number)[-1]]
        sites = occupy(number, general, rng=np.random.default_rng(0))
        assert sorted(sites.orbit_sizes) == [position.num_atoms for position in general]


def test_the_same_seed_gives_the_same_sites(model):
    first, again, other = (wishes(model, space_group=22, seed=seed).sites for seed in (1, 1, 2))
    assert all(np.array_equal(a.origin, b.origin) for a, b in zip(first, again, strict=True))
    assert [s.orbit_sizes for s in first] != [s.orbit_sizes for s in other]


@pytest.mark.parametrize("number", [22, 105])
def test_a_group_that_no_embedded_crystal_has(model, number):
    assert not embedded_sites().of_group(number, range(1, 9), accept=lambda sizes: True)
    asked = wishes(model, space_group=number)
    assert f"space group {number}" in asked.warnings[0]
    loose = [space_group(crystal, symprec=0.01).number for crystal in drawn(asked) if sound(crystal)]
    assert len(loose) > 5
    assert all(contains_group(found, number) for found in loose)


def sound(crystal):
    return crystal is not None and min_distance(crystal) > 0.3


def test_known_sites_come_first(model):
    asked = wishes(model, space_group=225)
    assert asked.warnings == ()
    assert {id(sites) for sites in asked.sites} <= {
        id(sites) for sites in embedded_sites().of_group(225, asked.sizes, accept=lambda sizes: True)
    }


def test_chosen_positions_with_a_formula(model):
    asked = wishes(model, space_group=221, wyckoff="1a,1b,3c", formula="LiFeO3")
    assert asked.warnings == ()
    for crystal in drawn(asked):
        assert Counter(crystal.atomic_numbers.tolist()) == {3: 1, 26: 1, 8: 3}
        if sound(crystal):
            assert space_group(crystal, symprec=0.01).number == 221


def test_chosen_positions_come_in_cells_of_several_shapes(model):
    """A body-centred tetragonal cell is reduced in one way or another, whether it is flat or long."""
    asked = wishes(model, space_group=139, wyckoff="a,b,e")
    assert {tuple(sorted(sites.orbit_sizes)) for sites in asked.sites} == {(1, 1, 2)}
    assert len({sites.rotations.tobytes() for sites in asked.sites}) > 1


@pytest.mark.parametrize(("number", "letters", "really"), [(225, "8c", 221), (75, "a", 123), (216, "a,b", 225)])
def test_positions_with_more_symmetry_are_named(number, letters, really):
    with pytest.raises(HigherSymmetryError, match=f"more symmetry than that: space group {really}, "):
        occupy(number, chosen_positions(number, letters), rng=np.random.default_rng(0))


def test_from_the_command_line(model, tmp_path):
    common = ["--num", 3, "--steps", 4, "--model", model]
    result = run("generate", *common, "--space-group", 105, "--out", tmp_path / "random")
    assert result.exit_code == 0, result.output
    assert "drawn at random" in " ".join(result.stderr.split())
    results = json.loads((tmp_path / "random" / "manifest.json").read_text())["results"]
    assert "drawn at random" in results["warnings"][0]
    options = ["--space-group", 139, "--wyckoff", "2a,4e", "--formula", "LiO2", "--num-atoms", 3]
    result = run("generate", *common, *options, "--out", tmp_path / "x")
    assert result.exit_code == 2  # the model has no cells of three atoms
    options = ["--space-group", 139, "--wyckoff", "2a,2b,4e", "--formula", "LiO", "--out", tmp_path / "chosen"]
    result = run("generate", *common, *options)
    assert result.exit_code == 0, result.output
    assert "random" not in result.stderr
    manifest = json.loads((tmp_path / "chosen" / "manifest.json").read_text())
    assert manifest["settings"]["generate"]["symmetry"]["wyckoff"] == "2a,2b,4e"
    assert manifest["results"]["chemical_systems"] == {"Li-O": 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--wyckoff", "4a"], "Wyckoff positions 4a were given and no space group"),
        (["--space-group", "225", "--wyckoff", "4ab"], "'4ab' is no Wyckoff position: write 4a,8c or a,c"),
        (["--space-group", "225", "--wyckoff", ""], "'' is no Wyckoff position"),
        (["--space-group", "221", "--wyckoff", "1a,z"], "221 has no Wyckoff position z: it has 1a, 1b, 3c, 3d, 6e,"),
        (["--space-group", "225", "--wyckoff", "1a"], "1a was asked for, and position a of space group 225 is 4a"),
        (["--space-group", "225", "--wyckoff", "b,b"], "4b of space group 225 has no free coordinate"),
        (
            ["--space-group", "225", "--wyckoff", "a,f"],
            "1+8 atoms in the primitive cell, and the model knows cells of 1, 2",
        ),
        (["--space-group", "225", "--wyckoff", "a,b,c", "--num-atoms", "5"], "else was asked for needs cells of 5"),
        (["--space-group", "225", "--wyckoff", "a,b,c", "--formula", "LiFe4"], "needs cells of 5"),
        (["--space-group", "225", "--wyckoff", "a,b,c", "--formula", "Li3Fe", "--counts", "O:1"], "O was asked for"),
        (
            ["--space-group", "216", "--wyckoff", "a,e", "--formula", "Li3Fe2"],
            "1+4 atoms in the primitive cell, each orbit",
        ),
        (["--space-group", "216", "--wyckoff", "a,b"], "more symmetry than that: space group 225, 2 atoms in a cell"),
        (["--space-group", "228"], "space group 228 that were tried have more symmetry"),
        (["--space-group", "230", "--num-atoms", "2-6"], "add up to 8, 12, 16, 20, 24, 28, ... atoms"),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, options, words):
    result = run("generate", "--out", tmp_path / "x", "--model", model, *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("options", [["--space-group", "105"], ["--space-group", "225", "--wyckoff", "a,b"]])
def test_without_pyxtal_one_sentence_says_what_to_do(monkeypatch, model, tmp_path, options):
    positions_of.cache_clear()
    monkeypatch.setitem(sys.modules, "pyxtal.symmetry", None)
    result = run("generate", "--out", tmp_path / "x", "--model", model, *options)
    assert result.exit_code == 2, result.output
    assert "pip install 'druse-generate[wyckoff]'" in " ".join(result.stderr.split())
