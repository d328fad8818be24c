"""The commands from the command line, at the size that only shows that they run."""

import json

import numpy as np
import pytest
import torch
from druse_benchmarks import label_fractions
from druse_benchmarks.cli import app
from druse_benchmarks.structure_prediction import matches
from druse_crystal import Crystal
from druse_crystal.dataset import load_embedded
from druse_energetics.digests import digests
from druse_scores import has_bfloat16
from typer.testing import CliRunner

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
ROCK_SALT = np.concatenate([FCC, FCC + 0.5]) % 1.0


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "build" / "benchmarks-smoke" / "results"


def check(result, folder, name):
    assert result.exit_code == 0, result.output
    assert result.stdout.strip().endswith("table.md")
    assert (folder / "table.md").read_text().count("|") > 10
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((folder / f"{name}.json").read_text())
    assert content["command"]
    assert {"versions", "machine", "settings", "inputs", "results", "timings", "seed"} <= content.keys()
    return content


def test_throughput(here, tiny_model):
    result = run("throughput", "--smoke", "--model", tiny_model, "--quiet")
    precisions = 2 if has_bfloat16(torch.device("cpu")) else 1
    assert len(check(result, here / "throughput", "throughput")["results"]["rows"]) == 2 * precisions


def test_published_network(here):
    result = run("published-network", "--smoke", "--quiet", "--threads", 1)
    results = check(result, here / "published-network", "published-network")["results"]
    rows, draws = results["rows"], results["draws"]
    assert [d["precision"] for d in draws] == list(dict.fromkeys(r["precision"] for r in rows))
    assert all(d["evaluations"] == 100 and d["seconds"] > 0 and d["peak_mib"] > 100 for d in draws)
    assert all(d["valid"] <= d["crystals"] == 2 and d["edges"] > 2 for d in draws)
    assert [row["crystals"] for row in rows if row["precision"] == "float32"] == [1, 2]
    assert all(row["seconds"] > 0 and row["gflop"] > 0 for row in rows)
    assert rows[0]["triplets"] > rows[0]["edges"] > 100


def test_training_curve(here):
    content = check(run("training-curve", "--smoke", "--quiet"), here / "training-curve", "training-curve")
    assert [row["step"] for row in content["results"]["validations"]] == [6, 12, 18, 24]


def test_matching(here):
    rows = check(run("matching", "--smoke", "--quiet"), here / "matching", "matching")["results"]["novelty"]
    assert [row["known"] for row in rows] == [40, 80]
    assert 0 < rows[1]["novel"] <= rows[0]["novel"] < 12


def test_analysis(here):
    results = check(run("analysis", "--smoke", "--quiet"), here / "analysis", "analysis")["results"]
    assert {name: found["crystals"] for name, found in results.items()} == {"known": 6, "substituted": 6}
    assert results["known"]["unique_and_novel_after"]["6"] == 0
    assert results["substituted"]["energy_above_hull"]
    assert results["substituted"]["force_calls"] >= 6


def test_calibration(here):
    results = check(run("calibration", "--smoke", "--quiet"), here / "calibration", "calibration")["results"]
    assert [row["name"] for row in results["rows"]] == [
        "sevennet-0, as judged",
        "sevennet-0, line",
        "sevennet-0, line and composition",
    ]
    assert results["rows"][0]["mae"] < 0.1  # eV/atom, of known crystals
    assert run("calibration", "--quiet").exit_code == 2


def test_constraints(here):
    result = run("constraints", "--smoke", "--quiet")
    group = check(result, here / "constraints", "space-group-225")["results"]
    formula = check(result, here / "constraints", "formula")["results"]
    assert formula["kept_as_drawn"] == 2
    assert group["kept_as_drawn"] == 2
    assert group["exactly_the_group"] is not None
    assert formula["exactly_the_group"] is None
    assert check(result, here / "constraints", "doping")["results"]["kept_as_drawn"] == 2


def test_structure_prediction(here):
    result = run("structure-prediction", "--smoke", "--quiet")
    results = check(result, here / "structure-prediction", "structure-prediction")["results"]
    for way in ("counted", "fixed"):
        assert results[way]["requested"] == 4
        first, second = results[way]["found_within"]
        assert 0 <= first <= second <= 4


def test_an_exact_draw_is_found_and_another_structure_is_not():
    salt = Crystal(lattice=5.64 * np.eye(3), frac_coords=ROCK_SALT, atomic_numbers=np.array([11] * 4 + [17] * 4))
    off = salt.replace(frac_coords=salt.frac_coords + 0.01 * np.random.default_rng(0).normal(size=(8, 3)))
    layered = salt.replace(lattice=np.diag([3.0, 3.0, 12.0]))
    found = matches([salt, salt, salt], {(0, 0): off, (1, 0): layered, (2, 0): None}, 1)
    assert found["found_within"] == [1]
    assert 0.001 < found["rmse_within"][0] < 0.05
    assert found["no_crystal"] == 1


@pytest.mark.parametrize("predicted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_label_fractions(here, tiny_model, predicted, monkeypatch):
    if not predicted:
        volumes = {"bulk_modulus": lambda crystals: np.array([c.volume for c in crystals])}
        monkeypatch.setattr(label_fractions, "obtainers", lambda _: volumes)
    result = run("label-fractions", "--smoke", "--quiet", "--threads", 1, "--model", tiny_model)
    results = check(result, here / "label-fractions", "label-fractions")["results"]
    half, whole = results["0.5"], results["1"]
    assert half["labels"] == round(whole["labels"] / 2)
    assert half["held_out"] == whole["held_out"] > 50
    assert whole["steps"] == 4
    assert half["off_untold"] == pytest.approx(whole["off_untold"])  # the base, whatever the adapter


def test_predictors(here):
    result, folder = run("predictors", "--smoke", "--quiet"), here / "predictors"
    for name in ("bulk-modulus", "magnetic-density", "band-gap"):
        results = check(result, folder, name)["results"]
        assert results.keys() == {name}
        assert results[name]["n"] == 5
        assert results[name]["without_prediction"] < 5


def test_a_predictor_alone_leaves_the_figures_of_the_others(here):
    folder = here / "predictors"
    assert run("predictors", "--smoke", "--quiet", "--predictors", "magnetic-density").exit_code == 0
    before = (folder / "magnetic-density.json").read_bytes()
    (row,) = [line for line in (folder / "table.md").read_text().splitlines() if "magnetic-density" in line]
    assert run("predictors", "--smoke", "--quiet", "--predictors", "band-gap").exit_code == 0
    assert (folder / "magnetic-density.json").read_bytes() == before
    table = (folder / "table.md").read_text()
    assert row in table
    assert "band-gap, eV" in table


def test_gaps_are_measured_on_crystals_that_nothing_was_trained_on(here, tmp_path):
    embedded, some, train = load_embedded(), tmp_path / "some.parquet", tmp_path / "train.parquet"
    test = np.flatnonzero((embedded.split == "test") & np.isfinite(embedded.labels["dft_band_gap"]))[:8]
    embedded.select(np.concatenate([np.flatnonzero(embedded.split == "train")[:40], test])).write(some)
    asked = [
        "predictors",
        "--predictors",
        "band-gap",
        "--quiet",
        "--work",
        tmp_path / "work",
        "--out",
        tmp_path / "out",
    ]
    assert run(*asked, "--dataset", some).exit_code == 0
    content = json.loads((tmp_path / "out" / "predictors" / "band-gap.json").read_text())
    labels, _ = content["values"]["band-gap"]
    np.testing.assert_allclose(labels, embedded.labels["dft_band_gap"][test], atol=1e-5)

    embedded.subset("train").select(range(9)).write(train)
    result = run(*asked, "--dataset", train)
    assert result.exit_code == 2
    assert "no crystal with a label dft_band_gap in its split test" in " ".join(result.stderr.split())


def test_properties(here, tiny_adapted):
    result = run("properties", "--smoke", "--model", tiny_adapted, "--quiet")
    asked = check(result, here / "properties", "hhi-1250")
    assert 0 <= asked["results"]["distinct_novel_hits"] <= asked["results"]["predictor_calls"] <= 2
    assert asked["dataset"]["found"]["predictor_calls"] > 5000
    assert len(check(result, here / "properties", "nothing")["crystals"]["obtained"]) == 7


def test_magnets(here, tiny_adapted):
    result = run("magnets", "--smoke", "--model", tiny_adapted, "--quiet")
    for name in ("magnets-of-low-hhi", "nothing"):
        found = check(result, here / "magnets", name)["crystals"]["obtained"]
        assert {key: len(values) for key, values in found.items()} == {"dft_mag_density": 2, "hhi_score": 2}


def test_hull(here):
    content = check(run("hull", "--smoke", "--quiet"), here / "hull", "hull")
    results = content["results"]
    assert content["inputs"] == digests("hull.parquet")
    assert content["timings"].keys() == {"druse", "pymatgen"}
    assert results["force_calls"] == 0
    assert results["largest_difference"] <= 1e-6
    assert sum(row["queries"] for row in results["milliseconds_by_elements"].values()) == 20


def test_chemical_systems_with_one_method(here):
    result = run("chemical-systems", "--smoke", "--methods", "airss", "--quiet")
    name = "O-Sr-V"
    content = check(result, here / "chemical-systems", f"airss/{name}")
    assert 0 < content["results"]["force_calls"] <= content["settings"]["budget"] == 30
    assert len(content["findings"]) == content["results"]["proposals_relaxed"]


def test_cost_of_one_method(here):
    result = run("cost", "--smoke", "--methods", "substitution", "--quiet")
    content = check(result, here / "cost", "substitution")
    assert [finding["calls"] > 0 for finding in content["findings"]] == [True] * 3
    assert content["results"]["timing"]["call_seconds"] > 0


@pytest.mark.slow
def test_chemical_systems(here):
    result = run("chemical-systems", "--smoke", "--quiet")
    for method in ("druse", "iterated-substitution", "ion-exchange", "pyxtal", "airss"):
        check(result, here / "chemical-systems", f"{method}/O-Sr-V")


@pytest.mark.slow
def test_cost(here):
    result = run("cost", "--smoke", "--quiet")
    for method in ("druse", "druse-screened", "substitution", "pyxtal", "airss"):
        check(result, here / "cost", method)


@pytest.mark.slow
def test_steps(here):
    content = check(run("steps", "--smoke", "--relax", "--quiet"), here / "steps", "steps")
    assert [row["sampler"] for row in content["results"]["rows"]] == ["fast:10+0@0.25", "fast:10+1@0.25"]


def test_unconditional_of_one_method(here):
    result = run("unconditional", "--smoke", "--methods", "airss", "--quiet")
    assert check(result, here / "unconditional", "airss")["results"]["read"]["count"] == 3


@pytest.mark.slow
def test_unconditional(here):
    result = run("unconditional", "--smoke", "--quiet")
    for name in ("druse", "substitution", "pyxtal", "known"):
        assert check(result, here / "unconditional", name)["results"]["read"]["count"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["throughput", "--threads", "two"], "a number such as 1"),
        (["throughput", "--model", "nowhere"], "does not exist"),
        (["unconditional", "--methods", "magic"], "no method 'magic'"),
        (["unconditional", "--num", 0], "at least 1"),
        (["unconditional", "--parents", "nowhere.parquet"], "nowhere.parquet"),
        (["unconditional", "--potential", "m3gnet"], "m3gnet"),
        (["chemical-systems", "--systems", "Li-Xx"], "'Xx' in 'Li-Xx' is no element"),
        (["chemical-systems", "--methods", "magic"], "no method 'magic'"),
        (["chemical-systems", "--budget", 0], "at least 1"),
        (["chemical-systems", "--potential", "m3gnet"], "m3gnet"),
        (["cost", "--methods", "magic"], "no method 'magic'"),
        (["cost", "--timed", 0], "at least 1"),
        (["steps", "--samplers", "slow:10"], "no sampler such as"),
        (["matching", "--references", "some"], "--references is 'some'"),
        (["matching", "--references", 10**6], "give another one with --dataset"),
        (["hull", "--num-elements", 1], "at least 2"),
        (["structure-prediction", "--ways", "guess"], "there is no way 'guess'"),
        (["structure-prediction", "--draws", 0], "ask for at least 1"),
        (["published-network", "--repeats", 0], "must be at least 1"),
        (["label-fractions", "--shares", "all"], "--shares is 'all'"),
        (["label-fractions", "--shares", "0"], "a share is above 0"),
        (["label-fractions", "--column", "hardness"], "no column 'hardness'"),
        (["constraints", "--constraints", "beauty"], "there is no constraint 'beauty'"),
        (["predictors", "--predictors", "colour"], "there is no predictor 'colour'"),
        (["properties", "--cases", "beauty"], "there is no case 'beauty'"),
        (["properties", "--guidance", -1], "guidance scale is -1"),
        (["properties", "--potential", "m3gnet"], "m3gnet"),
        (["magnets", "--cases", "beauty"], "there is no case 'beauty'"),
        (["magnets", "--adapter", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
        (["training-curve"], "which run"),
        (["training-curve", "nowhere"], "nowhere"),
    ],
)
def test_bad_requests_are_one_sentence(here, arguments, words):
    result = run(*arguments, "--quiet")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not here.exists()
