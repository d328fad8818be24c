import json
from dataclasses import replace

import numpy as np
import pytest
from druse_benchmarks import steps as bench
from druse_benchmarks.steps import DEFAULT, parse_samplers, quartiles
from druse_crystal.console import Display
from druse_crystal.manifest import Manifest
from druse_evaluate import judging
from druse_evaluate.config import EvaluationConfig
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from druse_generate import checking
from druse_generate.config import SAMPLERS, GenerateConfig, SamplerConfig

AS_DRAWN = [relaxed(salt(5.7), -1.7), relaxed(simple_cubic_salt(3.6), -1.5), lost("overlap", "two atoms are too close")]
RELAXED = [relaxed(salt(5.64), -2.0), relaxed(simple_cubic_salt(3.5), -1.95), lost("overlap", "two atoms are close")]


def test_samplers_from_words():
    expected = {
        "fast:50+0@1": ("fast", 50, 0, 1.0),
        "uniform:7+2@0.5": ("uniform", 7, 2, 0.5),
        "fast:9+0@0": ("fast", 9, 0, 0.0),
    }
    assert parse_samplers("fast:50+0@1, uniform:7+2@0.5,fast:9@0") == {
        word: SamplerConfig(grid=grid, steps=n, corrector_steps=k, temperature=t, lattice_temperature=t)
        for word, (grid, n, k, t) in expected.items()
    }
    assert list(parse_samplers("fast:50").values()) == [SamplerConfig(grid="fast", steps=50, corrector_steps=0)]
    (name, sampler), *others = parse_samplers("published:10+1/bfloat16").items()
    assert (name, sampler, others) == (
        "published:10+1@1/bfloat16",
        replace(SAMPLERS["published"], steps=10, corrector_steps=1),
        [],
    )
    evaluations = [sampler.evaluations for sampler in parse_samplers(DEFAULT).values()]
    assert (min(evaluations), max(evaluations)) == (10, 2000)
    for word in (
        "slow:10+1",
        "fast",
        "fast:ten+1",
        "fast:10+x",
        "fast:1+0",
        "fast:10+-1",
        "fast:10+1@-1",
        "fast:10@x",
        "published:9@0.5",
    ):
        with pytest.raises(ValueError, match="no sampler such as"):
            parse_samplers(word)


def test_quartiles_count_what_has_no_energy():
    values = np.array([0.4, np.nan, 0.1, 0.3, 0.2])
    assert quartiles(values) == [0.2, 0.3, 0.4]
    assert quartiles(np.array([0.1, 0.5, np.nan, np.nan])) == [0.1, 0.5, None]
    assert quartiles(np.array([np.nan])) == [None, None, None]


@pytest.fixture
def calls(monkeypatch):
    """Every relaxer that was made, by its largest number of steps."""
    made = []

    def make(config):
        made.append(config.max_steps)
        return AnsweringRelaxer(RELAXED if config.max_steps else AS_DRAWN)

    monkeypatch.setattr(judging, "make_relaxer_for", make)
    monkeypatch.setattr(bench, "load_reference", lambda name, potential: small_reference())
    return made


def run(tmp_path, model, words, *, relax):
    return bench.steps(
        parse_samplers(words),
        generation=GenerateConfig(num=3, seed=1),
        model=model,
        evaluation=EvaluationConfig(),
        relax=relax,
        out=tmp_path / "results",
        work=tmp_path / "work",
        display=Display(quiet=True),
        manifest=Manifest(),
    )


def test_record(tmp_path, tiny_model, calls):
    folder = run(tmp_path, tiny_model, "fast:4+1", relax=False)
    (row,) = json.loads((folder / "steps.json").read_text())["results"]["rows"]
    assert row["evaluations"] == 8
    assert row["seconds_per_crystal"] == pytest.approx(row["seconds"] / 3)
    assert row["unrelaxed_energy_above_hull"] == pytest.approx([0.3, 0.5, None])
    assert row["unrelaxed"]["uniqueness"]["count"] == 2
    assert "relaxed" not in row
    line = (folder / "table.md").read_text().splitlines()[-1]
    assert [c.strip() for c in line.strip("|").split("|")][-3:] == ["0.300", "0.500", "∞"]
    assert calls == [0]


def test_continued_with_another_sampler_and_a_relaxation(tmp_path, tiny_model, calls):
    run(tmp_path, tiny_model, "fast:4+1", relax=False)
    journal = (tmp_path / "work" / "draws.jsonl").read_text()
    folder = run(tmp_path, tiny_model, "fast:4+1,uniform:4+0", relax=True)
    after = (tmp_path / "work" / "draws.jsonl").read_text()
    assert after.startswith(journal)
    assert len(after.splitlines()) == 3
    rows = json.loads((folder / "steps.json").read_text())["results"]["rows"]
    assert [row["sampler"] for row in rows] == ["fast:4+1@0.25", "uniform:4+0@0.25"]
    assert [row["relaxed"]["sun"]["count"] for row in rows] == [1, 1]
    table = (folder / "table.md").read_text().splitlines()
    assert "metastable, unique, novel (as judged)" in table[2]
    assert [line.split("|")[-2].strip() for line in table[-2:]] == ["33.3 %", "33.3 %"]
    assert sorted(calls) == [0, 0, 500, 500]  # the first single points were not done again


def test_samplers_of_an_earlier_record_stay_if_the_settings_are_the_same(tmp_path, tiny_model, calls):
    run(tmp_path, tiny_model, "fast:6+1", relax=False)
    folder = run(tmp_path, tiny_model, "fast:4+1", relax=False)
    rows = json.loads((folder / "steps.json").read_text())["results"]["rows"]
    assert [row["sampler"] for row in rows] == ["fast:4+1@0.25", "fast:6+1@0.25"]
    folder = run(tmp_path, tiny_model, "fast:5+1", relax=True)  # judged otherwise: no common table
    rows = json.loads((folder / "steps.json").read_text())["results"]["rows"]
    assert [row["sampler"] for row in rows] == ["fast:5+1@0.25"]


def test_samplers_judged_by_other_weights_stay_out(tmp_path, tiny_model, calls, monkeypatch):
    run(tmp_path, tiny_model, "fast:6+1", relax=False)
    monkeypatch.setattr(bench, "weights_digests", lambda names: {"sevennet-0": "other"})
    folder = run(tmp_path, tiny_model, "fast:4+1", relax=False)
    rows = json.loads((folder / "steps.json").read_text())["results"]["rows"]
    assert [row["sampler"] for row in rows] == ["fast:4+1@0.25"]


def test_what_cannot_be_drawn_is_refused_before_anything_is(tmp_path, tiny_model, calls, monkeypatch):
    monkeypatch.setattr(checking, "has_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="mixed precision"):
        run(tmp_path, tiny_model, "fast:4+1,fast:4+1/bfloat16", relax=False)
    assert not (tmp_path / "work" / "draws.jsonl").exists()
