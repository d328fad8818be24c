import json

import pytest
from druse_benchmarks.training_curve import at_hours, read_log, read_logs, training_curve
from druse_crystal.manifest import Manifest

HEADER = "step,seen,hours,lr,val_lattice,val_frac_coords,val_species,val_total"


def line(step, hours, total):
    return f"{step},{60 * step},{hours},0.001,{total / 4},{total / 2},{total / 4},{total}"


@pytest.fixture
def run(tmp_path):
    """Killed after step 300, so that it went on from step 200; a line is being written."""
    lines = [line(100, 0.5, 2.0), line(200, 0.99, 1.5), line(300, 1.6, 1.4)]
    lines += [line(250, 1.3, 1.45), line(300, 1.7, 1.2), line(400, 2.0, 1.3), line(500, 2.6, 1.25), "600,36000,3."]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.csv").write_text("\n".join([HEADER, *lines]))
    (folder / "recipe.yaml").write_text("seed: 0\n")
    return folder


def test_repeated_steps_count_once(run):
    rows = read_log(run)
    assert [row["step"] for row in rows] == [100, 200, 250, 300, 400, 500]
    assert [row["val_total"] for row in rows] == [2.0, 1.5, 1.45, 1.2, 1.3, 1.25]
    assert read_log(run / "log.csv") == rows


def test_runs_that_follow_each_other_add_up(run):
    once, twice = read_log(run), read_logs([run, run / "log.csv"])
    assert twice[:6] == once
    assert twice[6] == once[0] | {"step": 600, "seen": 36000, "hours": pytest.approx(3.1)}
    assert dict(at_hours(twice))["4 h"]["step"] == 750
    with pytest.raises(ValueError, match="no run"):
        read_logs([])


def test_marks_that_were_reached(run):
    found = dict(at_hours(read_log(run)))
    assert {label: row["step"] for label, row in found.items()} == {"1 h": 200, "2 h": 400, "best": 300, "last": 500}


def test_record(run, tmp_path):
    folder = training_curve([run], out=tmp_path / "results", manifest=Manifest())
    content = json.loads((folder / "training-curve.json").read_text())
    assert len(content["results"]["validations"]) == 6
    assert set(content["inputs"]) == {"1/log.csv", "1/recipe.yaml"}
    assert "| 2 h | 2.00 | 400 | 24,000 | 1.3000 | 0.3250 | 0.6500 | 0.3250 |" in (folder / "table.md").read_text()
    assert (folder / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize("content", [None, "", HEADER, "a,b\n1,2\n"])
def test_no_log(tmp_path, content):
    if content is not None:
        (tmp_path / "log.csv").write_text(content)
    with pytest.raises(ValueError, match=r"log\.csv"):
        read_log(tmp_path)
