"""What is learnt about judges, and what is not."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from druse_benchmarks.calibration import (
    PENALTIES,
    CalibrationConfig,
    Judged,
    calibration,
    left_out,
    line,
    line_and_composition,
    ranking,
)
from druse_crystal.console import Display
from druse_crystal.manifest import Manifest
from druse_energetics.reference import load_reference
from druse_energetics.weights import weights_digests

ELEMENTS = (3, 8, 26, 29)


def judged(n: int = 240, *, of_elements=(0.0,) * 4, of_groups=(0.0,) * 4, seed: int = 0) -> Judged:
    """A judge that is off by something for each element and for each group."""
    rng = np.random.default_rng(seed)
    fractions = np.zeros((n, 119))
    fractions[:, ELEMENTS] = rng.dirichlet(np.ones(4), n)
    groups = np.arange(n) % 4
    dft = np.abs(rng.normal(0.2, 0.2, n))
    error = fractions[:, ELEMENTS] @ of_elements + np.array(of_groups)[groups] + 0.01 * rng.normal(size=n)
    return Judged(judged=(dft - error)[None], dft=dft, groups=np.array([f"g{g}" for g in groups]), fractions=fractions)


def mean_error(data, design, penalties) -> float:
    return float(np.abs(left_out(data, design, penalties) - data.dft).mean())


def test_what_belongs_to_elements_carries_over():
    data = judged(of_elements=(0.0, 0.0, 0.3, 0.1))
    assert mean_error(data, line, (0.0,)) > 0.03
    assert mean_error(data, line_and_composition, PENALTIES) < 0.025


def test_what_belongs_to_a_group_does_not():
    data = judged(of_groups=(0.0, 0.0, 0.0, 0.4))
    for design, penalties in ((line, (0.0,)), (line_and_composition, PENALTIES)):
        errors = left_out(data, design, penalties) - data.dft
        assert np.median(errors[data.groups == "g3"]) < -0.3


def test_ranking():
    dft = np.array([0.05, 0.05, 0.2, 0.2])
    assert ranking(np.array([0.0, 0.1, 0.2, 0.3]), dft) == 1.0
    assert ranking(np.array([0.3, 0.2, 0.1, 0.0]), dft) == 0.0
    assert ranking(np.array([0.1, 0.3, 0.2, 0.3]), dft) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert ranking(np.ones(2), np.zeros(2)) is None


@pytest.mark.slow
def test_salts_with_labels(tmp_path):
    """Rock salts at many lattice constants relax to one structure each, so that the label is off by its noise."""
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    salts = [(11, 17, 5.64), (19, 17, 6.3), (11, 35, 5.97), (3, 17, 5.13), (12, 8, 4.2)]
    rows = [salts[i % len(salts)] for i in range(24)]
    noise = np.random.default_rng(0).normal(0, 0.01, len(rows))
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table(
            {
                "lattice": [(a * fcc).ravel().tolist() for *_, a in rows],
                "frac_coords": [[0.0, 0.0, 0.0, 0.5, 0.5, 0.5]] * len(rows),
                "atomic_numbers": [[a, b] for a, b, _ in rows],
                "above": noise.tolist(),
                "maker": [f"m{i % 3}" for i in range(len(rows))],
            }
        ),
        path,
    )
    config = CalibrationConfig(label="above", group="maker", judges=("sevennet-0",))

    def run():
        options = {"out": tmp_path / "out", "work": tmp_path / "work"}
        return calibration(path, config, **options, display=Display(quiet=True), manifest=Manifest())

    folder = run()
    content = json.loads((folder / "calibration.json").read_text())
    rows = content["results"]["rows"]
    kept = (tmp_path / "work" / "sevennet-0.jsonl").read_text()
    steps = [line["n_steps"] for line in map(json.loads, kept.splitlines()) if "row" in line]
    assert content["results"]["force_calls"] == {"sevennet-0": sum(steps) + 24}
    assert content["reference_files"] == load_reference("embedded").files
    assert content["weights"] == weights_digests(["sevennet-0"])
    assert content["weights"].keys() == {"sevennet-0"}
    assert content["timings"].keys() == {"relaxation, sevennet-0", "hull, sevennet-0", "fits"}
    assert content["settings"]["matcher"] is None
    assert not content["times_are_of_the_last_part_only"]
    assert [row["n"] for row in rows] == [24] * 3
    assert rows[0]["mae"] < 0.05
    again = json.loads((run() / "calibration.json").read_text())
    assert again["times_are_of_the_last_part_only"]
    assert again["results"]["force_calls"] == content["results"]["force_calls"]
    assert (tmp_path / "work" / "sevennet-0.jsonl").read_text() == kept
    assert "sevennet-0, line and composition" in (folder / "table.md").read_text()


def test_too_few(tmp_path):
    with pytest.raises(ValueError, match="missing"):
        calibration(
            tmp_path / "missing.parquet",
            CalibrationConfig(label="a", group="b"),
            out=tmp_path,
            work=tmp_path,
            display=Display(quiet=True),
            manifest=Manifest(),
        )
