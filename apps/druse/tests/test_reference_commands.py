import csv
import gzip
import json
import shlex
from collections import Counter

import numpy as np
import pytest
from druse.cli import app
from druse_crystal.crystal import Crystal
from druse_crystal.io import write_extxyz
from typer.testing import CliRunner


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def source(tmp_path):
    cells = ((12,), (8, 8), (12, 8), (12, 26))
    crystals = [
        Crystal(
            lattice=4 * np.eye(3),
            frac_coords=np.arange(len(cell))[:, None] * np.full((1, 3), 0.5),
            atomic_numbers=np.array(cell),
        )
        for cell in cells
    ]
    info = [{"id": f"x-{i}", "energy": e} for i, e in enumerate((-1.6, -9.9, -12.0, -9.0))]
    write_extxyz(tmp_path / "mine.extxyz", crystals, info=info)
    return tmp_path / "mine.extxyz"


def test_build_info_merge(tmp_path, source):
    built = tmp_path / "out" / "mine.parquet"
    result = run("reference", "build", source, "--scheme", "MP2020", "--out", built, "--quiet", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["statuses"] == {"kept": 3, "no_reference": 1}  # nothing is known of iron alone
    assert facts["not_on_hull"] == str(built.with_suffix(".statuses.csv"))
    told = run("reference", "info", built)
    assert told.exit_code == 0
    assert "PBE, MP2020" in told.stdout
    assert "no energy of the pure element: Fe (1 structures" in told.stdout
    merged = run("reference", "merge", built, built, "--out", tmp_path / "both.parquet", "--json")
    assert json.loads(merged.stdout)["statuses"] == {"kept": 3, "duplicate": 4, "no_reference": 1}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine.parquet", "mine.statuses.csv"]


def test_whatever_is_not_on_the_hull_is_listed_with_its_reason(tmp_path, source):
    text = source.read_text()
    source.write_text(f"{text}1\nLattice='4 0 0 0 4 0 0 0 4' id=x-9\nMg 0 0 0\n1\nbroken\n")
    built = tmp_path / "mine.parquet"
    result = run("reference", "build", source, source, "--out", built, "--quiet")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert "not on its hull: 9 entries" in told
    assert "1 no reference, such as x-3 (mine.extxyz#4): there is no energy of the pure element Fe" in told
    assert "1 no energy, such as x-9" in told
    assert "2 unreadable" in told
    assert f"all of them, each with its reason: {built.with_suffix('.statuses.csv')}" in told
    rows = list(csv.DictReader(built.with_suffix(".statuses.csv").open()))
    assert Counter(row["status"] for row in rows) == {
        "duplicate": 5,
        "unreadable": 2,
        "no_reference": 1,
        "no_energy": 1,
    }
    assert all(row["message"] and row["source"] for row in rows)


def test_evaluate_refuses_to_mix(tmp_path, source):
    run("reference", "build", source, "--out", tmp_path / "plain.parquet", "--quiet")
    result = run(
        "evaluate", source, "--reference", tmp_path / "plain.parquet", "--potential", "chgnet", "--out", tmp_path / "o"
    )
    assert result.exit_code == 2, result.output
    assert "energies of chgnet are corrected by MP2020" in " ".join(result.stderr.split())
    assert not (tmp_path / "o").exists()


def test_a_reference_without_elements_is_warned_about(tmp_path, source):
    rows = source.read_text().splitlines(keepends=True)
    begin = next(i for i, row in enumerate(rows) if "x-2" in row) - 1
    (tmp_path / "oxide.extxyz").write_text("".join(rows[begin : begin + 4]))
    (tmp_path / "others.extxyz").write_text("".join(rows[:begin]))
    for name in ("oxide", "others"):
        result = run("reference", "build", tmp_path / f"{name}.extxyz", "--out", tmp_path / f"{name}.parquet", "-q")
        assert result.exit_code == 0, result.output
        told = " ".join(result.stderr.split())
        words = "until it is merged with references of the pure elements Mg, O: `druse reference merge"
        assert (words in told) == (name == "oxide")
    both = run(
        "reference", "merge", tmp_path / "oxide.parquet", tmp_path / "others.parquet", "-o", tmp_path / "both.parquet"
    )
    assert both.stderr == ""
    assert "of the entries 3 kept" in both.stdout


@pytest.mark.parametrize("name", ["embedded", "embedded-sevennet-0"])
def test_info_of_embedded_references(name):
    from druse_crystal.dataset import load_embedded
    from druse_energetics.reference import load_reference

    dataset, reference = load_embedded(), load_reference(name)
    told = run("reference", "info", name)
    assert told.exit_code == 0, told.output
    origin = "PBE" if name == "embedded" else "energies of sevennet-0"
    assert told.stdout.startswith(f"{name}: {origin}, MP2018\n{len(dataset)} structures")
    facts = json.loads(run("reference", "info", name, "--json").stdout)
    assert (facts["structures"], facts["phases"]) == (len(dataset), len(reference.hull))
    assert sum(facts["statuses"].values()) == len(dataset)
    xenon = sum(54 in crystal.atomic_numbers for crystal in dataset.crystals)
    assert xenon > 0
    assert ("Xe" in facts["elements"], facts["off_hull"] >= xenon) == (name != "embedded", name == "embedded")
    digests = {source["name"]: source["sha256"] for source in facts["sources"]}
    assert digests.items() <= reference.files.items()
    assert "embedded.parquet" in digests


def test_info_of_what_does_not_ship():
    result = run("reference", "info", "embedded-mace")
    assert result.exit_code == 2
    assert "'mace'" in result.stderr


@pytest.mark.parametrize("potential", ["sevennet-0", "chgnet"])
def test_the_commands_that_a_refusal_names_lead_to_a_reference(tmp_path, source, monkeypatch, potential):
    from druse_energetics.reference import load_reference

    monkeypatch.chdir(tmp_path)
    result = run("evaluate", source, "--reference", source, "--potential", potential, "--out", "o")
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "o").exists()
    commands = " ".join(result.stderr.split()).split("`")[1::2]
    assert len(commands) == 2
    for command in commands:
        built = run(*shlex.split(command)[1:], "--quiet")
        assert built.exit_code == 0, built.output
        reference = load_reference("mine.parquet", potential=potential)
        of_dft = "--potential" not in command
        added = -0.687 if of_dft else 0.0
        energy = -12.0 + (added if potential == "chgnet" else 0.0)  # CHGNet gives energies with the correction
        assert reference.formation_energy(reference.crystals[2], energy) == pytest.approx((-5.45 + added) / 2)


def test_a_missing_element_is_a_status_of_its_own_crystal(tmp_path, source):
    built = tmp_path / "mine.parquet"
    run("reference", "build", source, "--scheme", "MP2020", "--out", built, "--quiet")
    out = tmp_path / "judged"
    result = run("evaluate", source, "--reference", built, "--no-relax", "--out", out, "--quiet", "--json")
    assert result.exit_code == 0, result.output
    from druse_evaluation.table import Assessment

    table = Assessment.read(out / "crystals.parquet").table
    statuses = dict(zip(table["source"].to_pylist(), table["status"].to_pylist(), strict=True))
    lacking = [name for name, status in statuses.items() if status == "no_reference"]
    assert len(statuses) == 4
    assert lacking == [name for name in statuses if name.endswith("#4")]
    known = [
        e
        for s, e in zip(statuses.values(), table["energy_above_hull"].to_pylist(), strict=True)
        if s == "not_converged"
    ]
    assert known
    assert None not in known


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "nowhere.extxyz"], "nowhere.extxyz"),
        (["build", "cut.gz"], "cut off"),
        (["build", "mine.extxyz", "--scheme", "MP2030"], "choose one of none, MP2020"),
        (["build", "mine.extxyz", "--corrected"], "add --scheme"),
        (["build", "mine.extxyz", "--scheme", "MP2018"], "formation_energy_per_atom"),
        (["build", "mine.extxyz", "embedded", "--scheme", "MP2020"], "do not mix"),
        (["build", "materials-project"], "--chemical-system"),
        (["merge", "cut.parquet", "mine.extxyz"], "cut.parquet"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, source, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    packed = gzip.compress(np.random.default_rng(0).bytes(10000))
    (tmp_path / "cut.gz").write_bytes(packed[:5000])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    before = sorted(p.name for p in tmp_path.iterdir())
    result = run("reference", *arguments, "--out", "result.parquet")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
