import json
import math
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from druse_evaluation.estimate import Average, Rate
from druse_evaluation.funnel import funnel
from druse_evaluation.metrics import (
    METRICS,
    as_judged_and_calibrated,
    calibrated_sun_rate,
    expected_rate,
    measure,
    rate,
    read_rate,
    strict_sun_rate,
    sun_rate,
)
from druse_evaluation.summary import as_json, as_markdown, judge_sentence
from druse_evaluation.table import Assessment
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

METADATA: dict[str, Any] = {
    "judge": "test",
    "reference": "test",
    "n_known_structures": 3,
    "residual": {"mae": 0.03, "median": 0.02, "p90": 0.07, "n": 100},
    "calibrations": {
        "generated": {
            "n": 50,
            "bias": 0.09,
            "mean_absolute_error": 0.12,
            "calibrated_mean_absolute_error": 0.08,
            "spread": 0.09,
            "precision_metastable": 0.31,
            "recall_metastable": 0.9,
        },
        "wbm": {
            "n": 1020,
            "bias": -0.01,
            "mean_absolute_error": 0.04,
            "calibrated_mean_absolute_error": 0.03,
            "spread": 0.03,
            "precision_metastable": None,
            "recall_metastable": 0.95,
        },
    },
}


@pytest.fixture
def assessment():
    def judged(above, unique, novel, p):
        return {
            "status": "judged",
            "structure_valid": True,
            "composition_valid": above < 0.2,
            "converged": True,
            "energy": -1.0,
            "energy_above_hull": above,
            "metastable": above <= 0.1,
            "stable": above <= 0,
            "unique": unique,
            "novel": novel,
            "unique_order_disorder": unique,
            "novel_order_disorder": novel and above > 0,
            "novel_to_training": above < 0.04,
            "new_prototype": above != 0.3,
            "probability_metastable_generated": p / 2,
            "probability_stable_generated": p / 4,
            "probability_near_hull_50_mev_generated": p / 2.5,
            "probability_near_hull_25_mev_generated": p / 3,
            "probability_metastable_wbm": p,
            "probability_near_hull_50_mev_wbm": p / 1.25,
            "probability_near_hull_25_mev_wbm": p / 1.5,
            "probability_stable_wbm": p / 2,
            "rmsd": above + 0.1,
            "relaxation_energy_per_atom": -((above + 0.2) ** 2),
            "space_group_number": 1 if above > 0.2 else 225,
        }

    rows = [
        judged(-0.01, True, True, 0.9),
        judged(0.05, True, True, 0.6),
        judged(0.10, True, False, 0.5),
        judged(0.02, False, True, 0.8),
        judged(0.30, True, True, 0.1),
        {"status": "exploded", "structure_valid": True, "composition_valid": True, "converged": False},
        {"status": "unreadable", "message": "x.cif is empty"},
        {"status": "missing"},
    ]
    return Assessment.from_rows(rows, metadata=METADATA)


def test_counts_by_hand(assessment):
    assert read_rate(assessment) == Rate(6, 8)
    assert rate(assessment, "structure_valid") == Rate(6, 8)
    assert rate(assessment, "structure_valid", "composition_valid") == Rate(5, 8)
    assert rate(assessment, "metastable") == Rate(4, 8)
    assert sun_rate(assessment) == Rate(2, 8)
    assert strict_sun_rate(assessment) == Rate(1, 8)


def test_rates_between_metastable_and_stable_by_hand(assessment):
    """Judged: -0.01, 0.02, 0.05, 0.10, 0.30 eV/atom; one far below the hull is doubtful and counts nowhere."""
    names = [m.metric.name for m in measure(assessment)]
    assert [n for n in names if n in ("metastable", "near_hull_50_mev", "near_hull_25_mev", "stable")] == [
        "metastable",
        "near_hull_50_mev",
        "near_hull_25_mev",
        "stable",
    ]
    rows = [*assessment.table.to_pylist(), {"status": "doubtful", "energy_above_hull": -0.4}]
    values = {m.metric.name: m.value for m in measure(Assessment.from_rows(plain(rows), metadata=METADATA))}
    assert values["near_hull_50_mev"] == Rate(3, 9)
    assert values["near_hull_25_mev"] == Rate(2, 9)


def plain(rows):
    """Rows without the columns of crystals, of which these tests have none."""
    return [{k: v for k, v in row.items() if k not in ("initial", "relaxed")} for row in rows]


def test_energy_drop_on_relaxation(assessment):
    drops = np.array([0.19, 0.25, 0.3, 0.22, 0.5]) ** 2
    value = next(m.value for m in measure(assessment) if m.metric.name == "relaxation_energy_drop")
    assert isinstance(value, Average)
    assert (value.n, value.unit) == (5, "eV/atom")
    assert value.mean == pytest.approx(drops.mean())
    assert value.median == pytest.approx(np.median(drops)) == pytest.approx(0.0625)


def test_calibrated_rates_are_sums_of_probabilities(assessment):
    assert expected_rate(assessment, "probability_metastable_wbm").count == pytest.approx(0.9 + 0.6 + 0.5 + 0.8 + 0.1)
    assert calibrated_sun_rate(assessment, against="wbm").count == pytest.approx(0.9 + 0.6 + 0.1)
    assert calibrated_sun_rate(assessment).count == pytest.approx((0.9 + 0.6 + 0.1) / 2)
    assert calibrated_sun_rate(assessment).total == 8


def test_every_rate_about_the_hull_is_measured_as_judged_and_by_both_calibrations(assessment):
    values = {m.metric.name: m.value.as_dict() for m in measure(assessment)}
    counts = {"metastable": 4, "near_hull_50_mev": 3, "near_hull_25_mev": 2, "stable": 1, "sun": 2, "strict_sun": 1}
    for name, count in counts.items():
        assert values[name]["count"] == count
        hopeful = values[f"{name}_calibrated_wbm"]["count"]
        assert hopeful > 0
        assert values[f"{name}_calibrated_generated"]["count"] == pytest.approx(hopeful / 2)
    labels = {m.metric.name: m.metric.label for m in measure(assessment)}
    assert labels["metastable_calibrated_generated"] == "metastable (calibrated on generated crystals)"
    assert labels["metastable_calibrated_wbm"] == "metastable (calibrated on substituted crystals, WBM)"
    chances = 0.9 + 0.6 + 0.5 + 0.8 + 0.1
    assert values["near_hull_50_mev_calibrated_wbm"]["count"] == pytest.approx(chances / 1.25)
    assert values["near_hull_25_mev_calibrated_wbm"]["count"] == pytest.approx(chances / 1.5)


def test_stricter_kinds_of_new_are_calibrated_too(assessment):
    """Chances by WBM of those that are unique and new: 0.9, 0.6, 0.1 in all."""
    trained = Assessment(assessment.table, METADATA | {"n_training_structures": 5})
    values = {m.metric.name: m.value.count for m in measure(trained) if isinstance(m.value, Rate)}
    expected = {"sun_order_disorder": 0.6 + 0.1, "sun_training": 0.9, "sun_new_prototype": 0.9 + 0.6 + 0.5}
    for name, count in expected.items():
        assert values[f"{name}_calibrated_wbm"] == pytest.approx(count), name
        assert values[f"{name}_calibrated_generated"] == pytest.approx(count / 2), name
    assert values["sun_order_disorder"] == values["sun_training"] == 1
    assert not [m for m in measure(assessment) if m.metric.name.startswith("sun_training")]


def test_every_rate_as_judged_has_its_calibrated_values():
    judged = [m for m in METRICS if m.label.endswith("(as judged)")]
    assert len(judged) == 10
    about_the_hull = {m.name for m in METRICS if "stable" in m.name or "sun" in m.name or "near_hull" in m.name}
    alone = about_the_hull - {
        name for m in judged for name in (found.name for found in as_judged_and_calibrated(m.name))
    }
    assert alone == {"sun_agreed", "dynamically_stable"}  # of two judges together, and not about the hull
    for metric in judged:
        found = as_judged_and_calibrated(metric.name)
        assert [m.against for m in found] == [None, "generated", "wbm"], metric.name
        assert {m.judged for m in found} == {metric.name}
    assert [m.name for m in as_judged_and_calibrated("p1", "rmsd")] == ["p1", "rmsd"]


def test_funnel_ends_with_sun(assessment):
    counts = {stage.label: stage.count for stage in funnel(assessment)}
    assert counts == {
        "asked for": 8,
        "read": 6,
        "relaxed": 5,
        "unique": 4,
        "novel": 3,
        "metastable": 2,
        "on the hull": 1,
    }


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_scipy(case):
    count, total = case
    expected = binomtest(count, total).proportion_ci(confidence_level=0.95, method="wilson")
    assert Rate(count, total).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_by_hand():
    # 8 of 10: (0.8 + 1.9208/10) / 1.38415 -+ 1.95996/1.38415 sqrt(0.016 + 0.0096037)
    low, high = Rate(8, 10).interval
    assert (low, high) == pytest.approx((0.490162, 0.943318), abs=1e-5)


def test_the_judge_is_named_with_its_error():
    assert judge_sentence(METADATA) == (
        "Judge: test against the hull test; on 100 known crystals its formation energies are off by 30 meV/atom on "
        "average, and by less than 70 meV/atom in 90 % of cases. Against DFT (50 generated crystals) its "
        "distances to the hull are 90 meV/atom too low (median), off by 120 meV/atom on average as judged and by 80 "
        "meV/atom once calibrated; of what it calls metastable there, 31 % is so. Against DFT (1,020 substituted "
        "crystals, WBM) its distances to the hull are 10 meV/atom too high (median), off by 40 meV/atom on average as "
        "judged and by 30 meV/atom once calibrated. Generated crystals are the cautious end; substituted ones, "
        "computed exactly as the hull was, the hopeful."
    )
    unknown = {"residual": {"mae": None, "median": None, "p90": None, "n": 0}, "calibrations": {}}
    assert "not been measured" in judge_sentence(METADATA | unknown)
    assert "not calibrated" in judge_sentence(METADATA | unknown)


def test_nothing_of_nothing():
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval == (0.0, 1.0)
    empty = Assessment.from_rows([], metadata=METADATA)
    assert sun_rate(empty) == Rate(0, 0)
    json.dumps(as_json(empty, measure(empty)), allow_nan=False)


def test_average_ignores_what_is_unknown(assessment):
    values = np.array([0.09, 0.15, 0.2, 0.12, 0.4])
    found = Average.of(assessment.values("rmsd"), "Å")
    assert found.n == 5
    assert found.mean == pytest.approx(values.mean())
    assert found.median == pytest.approx(np.median(values))
    assert found.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(5))


def test_markdown_has_a_column_for_every_set(assessment):
    text = as_markdown({"Druse": measure(assessment), "PyXtal": measure(assessment)})
    assert text.startswith("| | Druse | PyXtal |\n")
    assert "| metastable, unique, novel (as judged) | 25.0 % [7.1, 59.1] | 25.0 % [7.1, 59.1] |" in text
    assert "| requested | 8 | 8 |" in text


def test_sets_measured_before_a_metric_came_have_an_empty_cell(assessment):
    now = measure(assessment)
    before = [m for m in now if not m.metric.name.startswith(("near_hull", "relaxation_energy"))]
    rows = {line.split("|")[1].strip(): line for line in as_markdown({"old": before, "new": now}).splitlines()}
    assert rows["≤ 0.05 eV/atom above hull (as judged)"].split("|")[2].strip() == ""
    assert "37.5 %" in rows["≤ 0.05 eV/atom above hull (as judged)"]
    assert rows["energy drop on relaxation"].split("|")[2].strip() == ""
    assert as_markdown({"old": before}).count("\n") == len(before) + 3


def test_tables_from_before_the_rates_near_the_hull_were_calibrated_do_not_show_them_as_nothing(assessment, tmp_path):
    assessment.write(tmp_path / "new.parquet")
    table = pq.read_table(tmp_path / "new.parquet")
    later = [name for name in table.schema.names if name.startswith(("probability_near_hull", "prototype_rms"))]
    assert len(later) == 5
    pq.write_table(table.drop_columns(later), tmp_path / "old.parquet")
    old = Assessment.read(tmp_path / "old.parquet")
    assert old.absent == set(later)
    assert old.table.schema.names == assessment.table.schema.names
    values = {m.metric.name: m.value for m in measure(old)}
    expected = {m.metric.name: m.value for m in measure(Assessment.read(tmp_path / "new.parquet"))}
    assert expected.keys() - values.keys() == {
        f"near_hull_{bound}_mev_calibrated_{against}" for bound in (50, 25) for against in ("generated", "wbm")
    }
    for name, value in values.items():
        assert str(value) == str(expected[name]), name


def test_uncalibrated_judges_and_empty_references_show_no_such_rates(assessment):
    plain = Assessment(assessment.table, METADATA | {"calibrations": {}, "n_known_structures": 0})
    names = {m.metric.name for m in measure(plain)}
    assert "metastable" in names
    assert not names & {"sun", "novelty"}
    assert not any("calibrated" in name for name in names)
    one = {"calibrations": {"wbm": METADATA["calibrations"]["wbm"]}, "n_known_structures": 0}
    names = {m.metric.name for m in measure(Assessment(assessment.table, METADATA | one))}
    assert "metastable_calibrated_wbm" in names
    assert not names & {"metastable_calibrated_generated", "sun_calibrated_wbm"}


def test_crystals_judged_as_they_are_have_no_figures_about_relaxation():
    rows = [{"status": "not_converged", "n_steps": 0, "energy": -1.0, "rmsd": 0.0, "converged": False}]
    names = {m.metric.name for m in measure(Assessment.from_rows(rows, metadata=METADATA))}
    assert "metastable" in names
    assert not names & {"rmsd", "match", "convergence", "relaxation_energy_drop"}
    judged = Assessment.from_rows([rows[0] | {"energy_above_hull": 0.05}], metadata=METADATA)
    assert not [m for m in measure(judged) if m.metric.against]
    moved = Assessment.from_rows([rows[0] | {"n_steps": 3}, *rows], metadata=METADATA)
    assert {"rmsd", "match", "convergence"} <= {m.metric.name for m in measure(moved)}


def test_json_round_trip(assessment):
    stored = json.loads(json.dumps(as_json(assessment, measure(assessment)), allow_nan=False))
    assert stored["metrics"]["sun"]["count"] == 2
    assert stored["metrics"]["sun"]["total"] == 8
    assert stored["judge"]["residual"]["mae"] == 0.03
