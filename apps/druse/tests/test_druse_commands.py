"""The whole way on a small scale, with the model and the judge that ship."""

import json

import pytest
from ase.io import read
from druse import discovering
from druse.cli import app
from druse_crystal.convert import from_ase
from druse_crystal.symmetry import spglib_dataset
from druse_energetics import potential, relaxation
from druse_energetics.potential import load_potential
from druse_evaluation.table import Assessment
from typer.testing import CliRunner


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_senseless_settings_are_refused_before_anything_is_drawn(tmp_path):
    config = tmp_path / "search.yaml"
    config.write_text("evaluate: {relaxation: {fmax: -1}}\n")
    result = run("discover", "--config", config, "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "fmax is -1" in result.stderr
    assert not (tmp_path / "x").exists()


def test_all_commands_are_there():
    result = run("--help")
    for name in ("generate", "relax", "evaluate", "discover", "info", "train", "reference"):
        assert name in result.stdout


@pytest.fixture(scope="module")
def discovered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discover")
    config = tmp_path_factory.mktemp("settings") / "search.yaml"
    config.write_text("pool: 2\ngenerate: {num: 5, num_atoms: [2, 4], sampler: {steps: 30}}\n")
    options = ["--config", config, "--num", 2, "--seed", 3]
    loaded = []

    def load(*arguments, **named):
        loaded.append(arguments)
        return load_potential(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        for module in (potential, relaxation):
            patch.setattr(module, "load_potential", load)
        result = run("discover", *options, "--out", folder, "--json")
    assert result.exit_code == 0, result.output
    assert loaded == [("sevennet-0",)]
    return folder, options, json.loads(result.stdout)


def test_discover_leaves_every_file(discovered):
    folder, _, metrics = discovered
    names = {path.name for path in folder.iterdir()}
    assert {"crystals.extxyz", "cifs.zip", "crystals.parquet", "report.html", "manifest.json", "metrics.json"} <= names
    assert not [name for name in names if name.endswith((".tmp", ".part"))]
    assert len(Assessment.read(folder / "crystals.parquet")) == 2
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["results"]["screening"]["drawn"] == 4
    assert "Screened before: drawn 4, usable" in (folder / "report.html").read_text()
    assert {"generation", "screening", "relaxation", "assessment", "report"} <= manifest["timings"].keys()
    assert metrics


def test_discover_continues_where_it_stopped(discovered):
    folder, options, _ = discovered
    relaxations = (folder / "relaxations.jsonl").read_bytes()
    generated = (folder / "generated.jsonl").read_bytes()
    table = Assessment.read(folder / "crystals.parquet").table
    again = run("discover", *options, "--out", folder)
    assert again.exit_code == 0, again.output
    assert (folder / "relaxations.jsonl").read_bytes() == relaxations
    assert (folder / "generated.jsonl").read_bytes() == generated
    assert Assessment.read(folder / "crystals.parquet").table.equals(table)


def test_what_was_asked_for_is_looked_for_in_the_relaxed_crystals(tmp_path):
    asked = ["--property", "ml_bulk_modulus=100..150", "--property", "space_group=225", "--num-atoms", 2]
    options = ["--num", 2, "--pool", 1, "--steps", 20, "--corrector-steps", 0, "--out", tmp_path, "--quiet"]
    result = run("discover", *options, *asked)
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "manifest.json").read_text())["results"]["obtained"]
    assert facts.keys() == {"ml_bulk_modulus=100..150", "space_group=225"}
    crystals = read(tmp_path / "crystals.extxyz", ":")
    moduli = [atoms.info["ml_bulk_modulus"] for atoms in crystals if "ml_bulk_modulus" in atoms.info]
    assert facts["ml_bulk_modulus=100..150"]["known"] == len(moduli) > 0
    assert facts["ml_bulk_modulus=100..150"]["met"] == sum(100 <= modulus <= 150 for modulus in moduli)
    groups = [spglib_dataset(from_ase(atoms)).number for atoms in crystals]
    assert facts["space_group=225"] == {"met": groups.count(225), "known": len(crystals), "requested": 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steer", "space_group=225"], "is nothing to steer by"),
        (["--steer", "mine"], "give a function as FILE.py:FUNCTION, or one of energy_above_hull"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--num", 0], "at least 1"),
        (["--pool", 0], "at least 1"),
        (["--potential", "m3gnet"], "sevennet-0"),
        (["--reference", "nowhere.json"], "nowhere.json"),
        (["--num-atoms", 500], "1 to 20 atoms"),
        (["--num-atoms", 0], "1 to 20 atoms"),
        (["--device", "cuda:99"], "use 'cpu'"),
        (["--space-group", 225, "--wyckoff", "4a,4a"], "4a of space group 225 has no free coordinate"),
    ],
)
def test_bad_requests_are_one_sentence(tmp_path, options, words):
    result = run("discover", "--steps", 3, "--out", tmp_path / "x", *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_device_is_that_of_network_and_potential(tmp_path, monkeypatch):
    devices = []

    def load(name, *, device):
        devices.append(device)
        return load_potential(name)

    def draw(*_, device, **__):
        devices.append(device)
        raise ValueError("far enough")

    monkeypatch.setattr(potential, "load_potential", load)
    monkeypatch.setattr(discovering, "draw_into", draw)
    for options in (["--device", "mps"], []):
        assert "far enough" in run("discover", "--out", tmp_path / "x", *options).stderr
    assert devices == ["mps", "mps", "cpu", "cpu"]
