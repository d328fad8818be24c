import hashlib
import json
import zipfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.io import ReadResult, read_crystals, write_cif, write_extxyz
from druse_crystal.manifest import Manifest
from druse_crystal.settings import read_settings
from druse_evaluate import judging
from druse_evaluate.cli import app
from druse_evaluate.config import EvaluationConfig, RelaxationConfig, with_options
from druse_evaluate.relaxing import unique_names
from druse_evaluate.store import RelaxationStore
from druse_evaluation.matching import OrderedMatcher
from druse_evaluation.novelty import KnownStructures
from druse_evaluation.table import Assessment
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

GIVEN = [salt(5.5), simple_cubic_salt(3.4), salt(5.6, anion=35, cation=19)]
ANSWERS = [relaxed(salt(5.64), -2.0), relaxed(simple_cubic_salt(3.5), -1.95), lost("exploded", "the cell grew")]
CANDIDATES = [ReadResult(source=f"{i}.cif", crystal=c) for i, c in enumerate(GIVEN)]


class Interrupted(AnsweringRelaxer):
    """Ctrl-C after so many crystals."""

    def __init__(self, results, after: int):
        super().__init__(results)
        self.after = after

    def __call__(self, crystals, *, on_result=None):
        assert on_result is not None
        for i in range(self.after):
            on_result(i, self.results[i])
        raise KeyboardInterrupt


@pytest.fixture
def small_world(monkeypatch):
    relaxer = AnsweringRelaxer(ANSWERS)
    monkeypatch.setattr(judging, "make_relaxer_for", lambda config: relaxer)
    monkeypatch.setattr("druse_energetics.reference.load_reference", lambda name, potential: small_reference())
    return relaxer


@pytest.fixture
def folder(tmp_path):
    for i, crystal in enumerate(GIVEN):
        write_cif(tmp_path / "in" / f"{i}.cif", crystal, symprec=None)
    (tmp_path / "in" / "9-broken.cif").write_text("data_x\n_cell_length_a 3\n")
    return tmp_path


def judge(out, relaxer):
    return judging.judge(
        CANDIDATES,
        out=out,
        config=EvaluationConfig(),
        display=Display(quiet=True),
        manifest=Manifest(seed=3),
        reference=small_reference(),
        relaxer=relaxer,
    )


def test_an_interrupted_run_continues(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        judge(tmp_path, Interrupted(ANSWERS, after=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["relaxations.jsonl"]
    rest = AnsweringRelaxer(ANSWERS[2:])
    assessment = judge(tmp_path, rest)
    assert rest.n_given == 1
    assert assessment.table.equals(judge(tmp_path / "fresh", AnsweringRelaxer(ANSWERS)).table)
    again = AnsweringRelaxer([])
    assert judge(tmp_path, again).table.equals(assessment.table)
    assert again.n_given == 0


def test_running_counts_follow_the_funnel(tmp_path, monkeypatch):
    """Known rock salt, a new structure near the hull, the same again, one that was lost, one whose atoms collided."""
    known, new = relaxed(salt(5.64), -2.0), relaxed(simple_cubic_salt(3.5), -1.95)
    collided = relaxed(salt(6.6, anion=35, cation=19), -1.95, status="overlap", message="two atoms are 0.3 Å apart")
    answers = [known, new, relaxed(simple_cubic_salt(3.51), -1.95), lost("exploded", "the cell grew"), collided]
    given = [salt(5.5), simple_cubic_salt(3.4), simple_cubic_salt(3.45)]
    given += [salt(a, anion=35, cation=19) for a in (5.6, 5.7)]
    shown, reference = [], small_reference()
    monkeypatch.setattr(Display, "update", lambda self, stage, done, total, counts: shown.append(dict(counts)))
    for relaxer in (AnsweringRelaxer(answers), AnsweringRelaxer([])):  # the second finds everything in the store
        judging.relax_all(
            given,
            config=RelaxationConfig(),
            store=RelaxationStore(tmp_path / "relaxations.jsonl", {}),
            display=Display(quiet=True),
            reference=reference,
            known=KnownStructures(reference.crystals, matcher=OrderedMatcher()),
            relaxer=relaxer,
        )
        assert shown[-1] == {"converged": 3, "≤ 0.1 eV/atom": 3, "new among them": 1, "exploded": 1, "overlap": 1}
    assert shown[0] == {}


def test_what_a_reference_takes_for_granted_is_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Display, "warn", lambda self, sentence: told.append(sentence))
    monkeypatch.setattr(
        "druse_energetics.reference.load_reference",
        lambda name, potential: replace(small_reference(), remark=f"taken to be {potential}'s"),
    )
    judging.judge(
        CANDIDATES,
        out=tmp_path,
        config=EvaluationConfig(),
        display=Display(quiet=True),
        manifest=Manifest(seed=3),
        relaxer=AnsweringRelaxer(ANSWERS),
    )
    assert told == ["taken to be sevennet-0's"]


def test_everything_is_written(tmp_path):
    assessment = judge(tmp_path, AnsweringRelaxer(ANSWERS))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "crystals.parquet",
        "manifest.json",
        "metrics.json",
        "relaxations.jsonl",
        "report.html",
    ]
    assert Assessment.read(tmp_path / "crystals.parquet").table.equals(assessment.table)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["results"]["status"] == {"judged": 2, "exploded": 1}
    assert manifest["results"]["force_calls"] == 2 * 21 + 4  # 20 steps each, and 3
    assert manifest["settings"]["relaxation"]["fmax"] == 0.05
    assert set(manifest["timings"]) == {"relaxation", "assessment", "report"}
    assert manifest["versions"]["druse-evaluation"]
    sun = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["sun"]
    assert (sun["count"], sun["total"]) == (1, 3)
    tests = json.loads((tmp_path / "metrics.json").read_text())["plausibility"]["failed_tests"]
    assert {name: test["total"] for name, test in tests.items()} == {
        "charge balance": 3,
        "bond lengths": 3,
        "coordination": 3,
    }


def test_evaluate_command(small_world, folder):
    out = folder / "out"
    result = CliRunner().invoke(app, ["evaluate", str(folder / "in"), "--out", str(out), "--json", "--requested", "6"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["plausibility"] == json.loads((out / "metrics.json").read_text())["plausibility"]
    metrics = printed["metrics"]
    assert (metrics["read"]["count"], metrics["read"]["total"]) == (3, 6)
    assert metrics["sun"]["count"] == 1
    status = Assessment.read(out / "crystals.parquet").strings("status")
    assert status == ["judged", "judged", "exploded", "unreadable", "missing", "missing"]
    assert (out / "report.html").stat().st_size > 1_000_000
    assert "9-broken.cif" in result.stderr


PARTLY_EMPTY = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 {occupancy}
Cl1 Cl 0.5 0.5 0.5 1
"""


@pytest.fixture
def disordered(folder):
    """Beside the crystals, two with sites that are shared or partly empty, and one whose occupancy is a mistake."""
    (folder / "in" / "6-partly-empty.cif").write_text(PARTLY_EMPTY.format(occupancy="0.7"))
    shared = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    (folder / "in" / "7-shared.json").write_text(json.dumps(shared.as_dict()))
    (folder / "in" / "8-mistake.cif").write_text(PARTLY_EMPTY.format(occupancy="7"))
    return folder


def test_disorder_has_a_status_of_its_own(small_world, disordered):
    out = disordered / "out"
    result = CliRunner().invoke(app, ["evaluate", str(disordered / "in"), "--out", str(out), "--json", "-q"])
    assert result.exit_code == 0, result.output
    assessment = Assessment.read(out / "crystals.parquet")
    expected = {"judged": 2, "exploded": 1, "disordered": 2, "unreadable": 2}
    assert len(assessment) == 7
    assert json.loads(result.stdout)["status"] == expected
    assert json.loads((out / "metrics.json").read_text())["status"] == expected
    assert json.loads((out / "manifest.json").read_text())["results"]["status"] == expected
    rows = {row["source"]: row for row in assessment.table.select(["source", "status", "message"]).to_pylist()}
    for source in ("6-partly-empty.cif", "7-shared.json"):
        assert rows[source]["status"] == "disordered"
        assert "disordered or partly occupied: order the structure first" in rows[source]["message"]
    assert rows["8-mistake.cif"]["status"] == "unreadable"
    metrics = json.loads(result.stdout)["metrics"]
    assert (metrics["read"]["count"], metrics["read"]["total"]) == (3, 7)
    assert "2 disordered (of sites that are shared or partly empty" in (out / "report.html").read_text()


def test_disorder_is_counted_in_words(small_world, disordered):
    result = CliRunner().invoke(app, ["evaluate", str(disordered / "in"), "-o", str(disordered / "out")])
    assert result.exit_code == 0, result.output
    assert "2 disordered (of sites that are shared or partly empty" in " ".join(result.stdout.split())
    assert "2 disordered" in result.stderr


def test_relax_gives_disorder_its_status(small_world, disordered):
    out = disordered / "out"
    result = CliRunner().invoke(app, ["relax", str(disordered / "in"), "--out", str(out), "-q"])
    assert result.exit_code == 0, result.output
    statuses = [row["status"] for row in pq.read_table(out / "relaxations.parquet").to_pylist()]
    assert statuses[3:] == ["disordered", "disordered", "unreadable", "unreadable"]


def test_nothing_but_disorder_of_so_many_asked_for_is_a_result(small_world, disordered):
    only, out = disordered / "in" / "6-partly-empty.cif", disordered / "out"
    result = CliRunner().invoke(app, ["evaluate", str(only), "-o", str(out), "-q", "--json", "--requested", "2"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == {"disordered": 1, "missing": 1}
    assert "disordered or partly occupied: order the structure first" in refused("evaluate", only, "-o", out)


def test_evaluate_prints_a_table_and_the_judges_error(small_world, folder):
    result = CliRunner().invoke(app, ["evaluate", str(folder / "in"), "-o", str(folder / "out"), "-q"])
    assert result.exit_code == 0, result.output
    assert "metastable, unique, novel" in result.stdout
    assert "25.0 %" in result.stdout
    assert "30 meV/atom" in " ".join(result.stdout.split())
    assert [line[:8] for line in result.stderr.splitlines()] == ["not read"]  # no progress, but what went wrong


def test_relax_command(small_world, folder):
    out = folder / "out"
    result = CliRunner().invoke(app, ["relax", str(folder / "in"), "--out", str(out), "--fmax", "0.1"])
    assert result.exit_code == 0, result.output
    frames = list(read_crystals(out / "relaxed.extxyz"))
    assert [f.crystal.num_atoms for f in frames if f.crystal is not None] == [2, 2]
    assert frames[0].info["relaxation_status"] == "converged"
    with zipfile.ZipFile(out / "relaxed.zip") as archive:
        assert len(archive.namelist()) == 2
    rows = pq.read_table(out / "relaxations.parquet").to_pylist()
    assert [r["status"] for r in rows] == ["converged", "converged", "exploded", "unreadable"]
    assert json.loads((out / "manifest.json").read_text())["settings"]["fmax"] == 0.1


def test_crystals_that_all_explode_are_a_result(folder, monkeypatch):
    relaxer = AnsweringRelaxer([lost("exploded", "the cell grew")] * 3)
    monkeypatch.setattr(judging, "make_relaxer_for", lambda config: relaxer)
    result = CliRunner().invoke(app, ["relax", str(folder / "in"), "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    assert not (folder / "out" / "relaxed.extxyz").exists()


def refused(*arguments: object) -> str:
    """The one sentence after a user's error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("druse")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("command", [("relax",), ("relax", "--quiet"), ("evaluate",), ("evaluate", "--no-relax")])
def test_nothing_that_can_be_read_is_one_sentence(small_world, folder, command):
    for i in range(len(GIVEN)):
        (folder / "in" / f"{i}.cif").unlink()
    command, *options = command
    broken, out = folder / "in" / "9-broken.cif", folder / "out"
    sentence = refused(command, broken, "--out", out, *options)
    assert "9-broken.cif: it holds no structure (no _atom_site_fract_x): export it again with its atoms" in sentence
    (folder / "in" / "1-empty.cif").write_text("")
    sentence = refused(command, folder / "in", "--out", out, *options)
    assert sentence.endswith(
        f"none of 2 structures in {folder / 'in'} can be read; the first is 1-empty.cif: it is empty: export it again"
    )
    assert not out.exists()
    assert small_world.n_given == 0


def test_nothing_that_can_be_read_of_so_many_asked_for_is_a_result(small_world, folder):
    for i in range(len(GIVEN)):
        (folder / "in" / f"{i}.cif").write_text("data_x\n")
    out = folder / "out"
    call = ["evaluate", str(folder / "in"), "--out", str(out), "--requested", "10", "--json", "-q"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert Assessment.read(out / "crystals.parquet").strings("status") == ["unreadable"] * 4 + ["missing"] * 6
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    for name in ("read", "structure_validity", "convergence", "metastable", "sun"):
        assert (metrics[name]["count"], metrics[name]["total"]) == (0, 10)
    assert (out / "report.html").is_file()
    assert small_world.n_given == 0
    assert "more than the 3" in refused("evaluate", folder / "in", "--out", folder / "few", "--requested", 3)


@pytest.mark.parametrize("kind", ["folder", "folder of other files", "zip", "zip of folders", "dataset"])
def test_nothing_there_of_so_many_asked_for_is_a_result(small_world, tmp_path, kind):
    given = tmp_path / "given"
    if kind.startswith("folder"):
        (given / "deeper").mkdir(parents=True)
        if kind != "folder":
            (given / "deeper" / "log.txt").write_text("stopped")
    elif kind.startswith("zip"):
        given = tmp_path / "given.zip"
        with zipfile.ZipFile(given, "w") as archive:
            if kind != "zip":
                archive.writestr("cifs/", "")
    else:
        CrystalDataset(ids=[], crystals=[]).write(given := tmp_path / "given.parquet")
    out = tmp_path / "out"
    call = ["evaluate", str(given), "--out", str(out), "--requested", "10", "--json"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    if kind != "dataset":
        assert f"{given} holds no structure files: it has none of the 10" in " ".join(result.stderr.split())
    assert Assessment.read(out / "crystals.parquet").strings("status") == ["missing"] * 10
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    for name in ("read", "structure_validity", "metastable", "sun"):
        assert (metrics[name]["count"], metrics[name]["total"]) == (0, 10)
    assert (out / "report.html").is_file()
    refused("evaluate", given, "--out", tmp_path / "again")  # nobody says that any was asked for
    assert not (tmp_path / "again").exists()
    assert "nowhere does not exist" in refused("evaluate", tmp_path / "nowhere", "--requested", 10, "--out", out)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashes_of_whatever_was_read(small_world, folder):
    settings, reference = folder / "c.yaml", folder / "mine.extxyz"
    settings.write_text("n_best: 3\n")
    write_extxyz(reference, [salt(5.64)])
    write_cif(folder / "learnt.cif", simple_cubic_salt(3.5))
    inputs, out = folder / "in" / "0.cif", folder / "out"
    call = ["evaluate", str(inputs), "-o", str(out), "-q", "--reference", str(reference), "--config", str(settings)]
    result = CliRunner().invoke(app, [*call, "--training", str(folder / "learnt.cif")])
    assert result.exit_code == 0, result.output
    read = (inputs, settings, reference, folder / "learnt.cif")
    assert json.loads((out / "manifest.json").read_text())["inputs"] == {str(path): sha256(path) for path in read}
    result = CliRunner().invoke(app, ["relax", str(inputs), "-o", str(folder / "r"), "-q", "--config", str(settings)])
    assert result.exit_code == 0, result.output
    assert set(json.loads((folder / "r" / "manifest.json").read_text())["inputs"]) == {str(inputs), str(settings)}


def test_the_judge_is_named_with_the_hash_of_its_weights(small_world, folder):
    out = folder / "out"
    result = CliRunner().invoke(app, ["evaluate", str(folder / "in"), "-o", str(out), "--json", "-q"])
    assert result.exit_code == 0, result.output
    weights = Path(str(files("sevenn"))) / "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"
    judge = json.loads((out / "metrics.json").read_text())["judge"]
    assert judge["weights"] == {"sevennet-0": sha256(weights)}
    assert Assessment.read(out / "crystals.parquet").metadata == judge == json.loads(result.stdout)["judge"]


def test_user_errors_are_one_sentence_and_leave_nothing(small_world, folder):
    out = folder / "out"
    assert "nowhere" in refused("evaluate", folder / "nowhere", "--out", out)
    assert not out.exists()
    assert "more than the 2" in refused("evaluate", folder / "in", "--out", out, "--requested", 2)
    assert not out.exists()
    (folder / "file").write_text("")
    assert "file" in refused("evaluate", folder / "in", "--out", folder / "file" / "out")
    config = folder / "c.yaml"
    config.write_text("relaxation: {fmx: 0.1}\n")
    assert "relaxation.fmx" in refused("evaluate", folder / "in", "--out", out, "--config", config)
    assert not out.exists()


@pytest.mark.parametrize("option", [("--fmax", "-1"), ("--max-steps", "-3"), ("--potential", "emt")])
def test_senseless_settings(folder, option):
    sentence = refused("relax", folder / "in", "--out", folder / "out", *option)
    assert option[1] in sentence or "emt" in sentence
    assert not (folder / "out").exists()


def test_config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("reference: mine.parquet\nrelaxation:\n  fmax: 0.02\n")
    config = read_settings(path, EvaluationConfig)
    assert config == EvaluationConfig(reference="mine.parquet", relaxation=RelaxationConfig(fmax=0.02))
    changed = with_options(config, reference=None, potential="chgnet", fmax=None, max_steps=0, device=None)
    assert changed.relaxation == RelaxationConfig(potential="chgnet", fmax=0.02, max_steps=0)
    assert changed.reference == "mine.parquet"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="must hold keys and values"):
        read_settings(path, EvaluationConfig)
    path.write_text("relaxation: {fmax: fast}\n")
    with pytest.raises(ValueError, match=r"relaxation\.fmax"):
        read_settings(path, EvaluationConfig)
    with pytest.raises(ValueError, match="cannot read the settings"):
        read_settings(tmp_path / "none.yaml", EvaluationConfig)
    path.write_text("")
    assert read_settings(path, EvaluationConfig) == EvaluationConfig()


def test_names_of_files():
    assert unique_names(["a/b.cif", "a-b-2", "a/b.cif", "../..", "ü#3"]) == [
        "a-b",
        "a-b-2",
        "a-b-3",
        "crystal",
        "ü-3",
    ]


def test_second_judge_and_training_set(small_world, folder):
    """The second judge relaxes what the first has relaxed, and its work is kept beside the first's."""
    small_world.results += [relaxed(salt(5.66), -2.0), relaxed(simple_cubic_salt(3.52), -1.8)]
    write_cif(folder / "learnt" / "a.cif", simple_cubic_salt(3.5))
    call = ["evaluate", str(folder / "in"), "--out", str(folder / "out"), "--judge", "chgnet", "-q"]
    result = CliRunner().invoke(app, [*call, "--training", str(folder / "learnt"), "--json"])
    assert result.exit_code == 0, result.output
    assessment = Assessment.read(folder / "out" / "crystals.parquet")
    assert assessment.metadata["judges"] == ["sevennet-0", "chgnet"]
    assert assessment.values("disagreement")[:2] == pytest.approx([0.0, 0.15])
    assert "a.cif" in (assessment.strings("training_match_id")[1] or "")
    assert (folder / "out" / "relaxations-chgnet.jsonl").is_file()
    metrics = json.loads(result.stdout)["metrics"]
    assert metrics["sun_agreed"]["count"] == 0
    assert metrics["sun"]["count"] == metrics["sun_training"]["count"] + 1


@pytest.mark.parametrize("judge", ["sevennet-0", "chgpt"])
def test_judges_that_make_no_sense(small_world, folder, judge):
    result = CliRunner().invoke(app, ["evaluate", str(folder / "in"), "--out", str(folder / "out"), "--judge", judge])
    assert result.exit_code == 2
    assert judge in result.output
    assert not (folder / "out").exists()
