import hashlib
import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from druse_crystal.crystal import Crystal
from druse_crystal.io import ReadResult
from druse_energetics.calibration import Calibration, JudgeError
from druse_energetics.weights import weights_path
from druse_evaluation.assessment import assess
from druse_evaluation.estimate import Average, Rate
from druse_evaluation.funnel import funnel
from druse_evaluation.matching import OrderedMatcher
from druse_evaluation.metrics import (
    calibrated_sun_rate,
    element_flags,
    energy_above_hull,
    failed_tests,
    measure,
    plausibility_rate,
    sun_rate,
)
from druse_evaluation.novelty import KnownStructures
from druse_evaluation.opinion import Opinion
from druse_evaluation.report import render_report
from druse_evaluation.summary import calibration_gap, plausibility_as_json, plausibility_sentence
from druse_evaluation.table import COLUMNS, Assessment
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference

POTASSIUM_BROMIDE = salt(6.6, anion=35, cation=19)
UNKNOWN_ELEMENT = salt(5.0, anion=9, cation=3)
CANDIDATES = [
    salt(5.5),  # known
    simple_cubic_salt(3.4),  # a new polymorph
    simple_cubic_salt(3.6),  # the same again
    POTASSIUM_BROMIDE,  # new, stops early
    UNKNOWN_ELEMENT,
    salt(5.5).replace(frac_coords=np.array([[0, 0, 0], [0.02, 0, 0]])),
    ReadResult(source="broken.cif", crystal=None, error="broken.cif is empty: remove it"),
    None,
    ReadResult(source="far.cif", crystal=salt(5.6, shift=0.1), info={}),
]
RESULTS = [
    relaxed(salt(5.64), -2.0),
    relaxed(simple_cubic_salt(3.5), -1.95),
    relaxed(simple_cubic_salt(3.5), -1.95),
    relaxed(POTASSIUM_BROMIDE, -1.95, status="not_converged", message="forces of 0.3 eV/Å are left after 500 steps"),
    relaxed(UNKNOWN_ELEMENT, -1.0),
    lost("overlap", "two atoms are 0.08 Å apart"),
    relaxed(salt(5.64), -1.5),
]


def calibration() -> Calibration:
    """The straight line DFT = judged + 0.05, errors uniform within 0.1 eV/atom."""
    error = JudgeError(
        n=60, bias=0.05, mae=0.06, spread=0.04, precision={"0.1": 0.4}, recall={"0.1": 0.8}, judged={}, dft={}
    )
    return Calibration(
        potential="answers",
        against="generated",
        intercept=0.05,
        slope=1.0,
        spread_intercept=0.1,
        spread_slope=0.0,
        quantiles=np.linspace(-1, 1, 101).tolist(),
        floor=-1.0,
        raw=error,
        calibrated=error,
        rates={},
    )


@pytest.fixture
def reference():
    return small_reference()


@pytest.fixture
def assessment(reference) -> Assessment:
    return assess(CANDIDATES, reference=reference, relaxer=AnsweringRelaxer(RESULTS))


def test_every_crystal_keeps_its_row(assessment):
    assert len(assessment) == len(CANDIDATES)
    assert assessment.strings("status") == [
        "judged",
        "judged",
        "judged",
        "not_converged",
        "no_reference",
        "overlap",
        "unreadable",
        "missing",
        "judged",
    ]
    messages = assessment.strings("message")
    assert messages[3] == "forces of 0.3 eV/Å are left after 500 steps"
    assert "F, Li" in messages[4] or "Li, F" in messages[4]
    assert messages[5] == "two atoms are 0.08 Å apart"
    assert messages[6] == "broken.cif is empty: remove it"
    assert assessment.strings("source")[6:] == ["broken.cif", "7", "far.cif"]


def test_energies(assessment):
    above = assessment.values("energy_above_hull")
    assert above[:4] == pytest.approx([0.0, 0.05, 0.05, -0.05])
    assert np.isnan(above[4:8]).all()
    assert above[8] == pytest.approx(0.5)
    assert assessment.values("formation_energy_per_atom")[1] == pytest.approx(-1.95)
    assert assessment.values("relaxation_energy_per_atom")[0] == pytest.approx(-0.2)
    assert assessment.flags("metastable").tolist() == [True, True, True, True] + 5 * [False]


def test_far_below_the_hull_is_doubted(reference):
    results = [relaxed(simple_cubic_salt(3.5), -2.29), relaxed(POTASSIUM_BROMIDE, -2.21), relaxed(salt(5.64), -1.9)]
    candidates = [simple_cubic_salt(3.4), POTASSIUM_BROMIDE, salt(5.5)]
    reference = replace(reference, calibrations={"generated": calibration()})
    assessment = assess(candidates, reference=reference, relaxer=AnsweringRelaxer(results))
    assert assessment.values("energy_above_hull") == pytest.approx([-0.29, -0.31, 0.1])
    assert assessment.strings("status") == ["judged", "doubtful", "judged"]
    assert assessment.strings("message")[1] == (
        "judged 0.31 eV/atom below the hull: an error of the judge is likelier than a discovery"
    )
    assert assessment.table["stable"].to_pylist() == [True, False, False]
    assert assessment.table["metastable"].to_pylist() == [True, False, True]
    assert assessment.table["probability_metastable_generated"].is_null().to_pylist() == [False, True, False]
    assert assessment.ranking() == [0, 1, 2]  # the doubtful one is new, the last one known
    assert sun_rate(assessment).count == 1
    assert energy_above_hull(assessment).n == 2
    assert ">doubtful<" in render_report(assessment)


def test_uniqueness_and_novelty(assessment):
    assert assessment.flags("unique")[[0, 1, 3]].all()
    assert not assessment.flags("unique")[2]
    assert assessment.strings("duplicate_of")[2] == "1"
    assert assessment.flags("novel").tolist() == [False, True, True, True, True, False, False, False, False]
    assert assessment.strings("match_id")[0] == "rock salt"
    assert assessment.flags("known_formula")[:4].tolist() == [True, True, True, False]
    assert assessment.flags("sun_metastable").tolist() == [False, True, False, True] + 5 * [False]
    assert sun_rate(assessment).count == 2
    assert sun_rate(assessment).total == 9
    assert [s.count for s in funnel(assessment)] == [9, 7, 6, 4, 3, 2, 1]


def alloy(layers: str) -> Crystal:
    """Copper and gold on the sites of one face-centred cubic cell, in layers along [001] or [111]."""
    axes = {"001": [[1, 1, 0], [1, -1, 0], [0, 0, 2]], "111": [[1, -1, 0], [0, 1, -1], [4, 4, 4]]}[layers]
    lattice = 3.9 / 2 * np.array(axes, float)
    if layers == "001":
        return Crystal(
            lattice=lattice, frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), atomic_numbers=np.array([29, 79])
        )
    heights = np.arange(6)
    shifts = np.outer(heights, [1 / 3, 2 / 3, 0]) + np.outer(heights, [0, 0, 1 / 6])
    return Crystal(lattice=lattice, frac_coords=shifts % 1.0, atomic_numbers=np.array([29, 79] * 3))


def test_orderings_of_a_known_alloy_are_not_novel_to_the_published_matcher(reference):
    reference = replace(reference, crystals=[salt(5.64), alloy("001")], ids=["rock salt", "CuAu"])
    crystals = [alloy("111"), alloy("001"), alloy("111")]
    found = assess(
        crystals, reference=reference, relaxer=AnsweringRelaxer([relaxed(crystal, -0.1) for crystal in crystals])
    )
    assert found.flags("novel").tolist() == [True, False, True]
    assert found.flags("novel_order_disorder").tolist() == [False, False, False]
    assert found.flags("unique").tolist() == [True, True, False]
    assert found.flags("unique_order_disorder").tolist() == [True, False, False]


def test_structure_types_of_other_elements(assessment):
    assert assessment.strings("prototype_id")[:4] == ["rock salt", None, None, "rock salt"]
    assert assessment.flags("new_prototype")[:4].tolist() == [False, True, True, False]
    assert assessment.values("prototype_rms")[[0, 3]] == pytest.approx(0, abs=1e-6)
    assert np.isnan(assessment.values("prototype_rms")[1:3]).all()
    assert "rock salt, sites 0.000 (V/N)^(1/3) off" in render_report(assessment)
    values = {m.metric.name: m.value for m in measure(assessment)}
    assert values["new_prototype"] == Rate(1, len(CANDIDATES))
    assert values["sun_new_prototype"] == Rate(1, len(CANDIDATES))
    assert values["sun_order_disorder"] == values["sun"]
    assert not {"novelty_training", "sun_training"} & values.keys()


def test_novelty_against_the_training_set(reference):
    training = KnownStructures([simple_cubic_salt(3.6)], ["learnt"], matcher=OrderedMatcher())
    assessment = assess(CANDIDATES, reference=reference, relaxer=AnsweringRelaxer(RESULTS), training=training)
    assert assessment.table["novel_to_training"].to_pylist()[:4] == [True, False, False, True]
    assert assessment.strings("training_match_id")[1] == "learnt"
    assert assessment.metadata["n_training_structures"] == 1
    values = {m.metric.name: m.value for m in measure(assessment)}
    assert values["sun"] == Rate(2, len(CANDIDATES))
    assert values["sun_training"] == Rate(1, len(CANDIDATES))
    assert "in the training set: learnt" in render_report(assessment)


def test_hashes_of_reference_and_weights_are_part_of_the_table(reference, tmp_path):
    reference = replace(reference, files={"mine.parquet": "a1"})
    other = replace(reference, files={"energies-chgnet.parquet": "b2"})
    found = assess(
        CANDIDATES,
        reference=reference,
        relaxer=AnsweringRelaxer(RESULTS),
        judge="answers",
        opinions={"chgnet": Opinion(reference=other, relaxations=[None] * len(CANDIDATES))},
    )
    found.write(tmp_path / "new.parquet")
    metadata = Assessment.read(tmp_path / "new.parquet").metadata
    assert metadata["reference_files"] == {"energies-chgnet.parquet": "b2", "mine.parquet": "a1"}
    assert metadata["weights"] == {"chgnet": hashlib.sha256(weights_path("chgnet").read_bytes()).hexdigest()}
    before = {name: value for name, value in metadata.items() if name not in ("reference_files", "weights")}
    Assessment(found.table, before).write(tmp_path / "old.parquet")
    old = Assessment.read(tmp_path / "old.parquet")
    assert measure(old) == measure(found)
    assert "asked for" in render_report(old)


def test_second_opinions(reference):
    """The second judge finds the polymorph 0.1 eV/atom higher, and has nothing to say about potassium bromide."""
    second = [relaxed(salt(5.7), -2.0), *(relaxed(simple_cubic_salt(3.6), -1.85) for _ in range(2)), None]
    opinions = {
        "sevennet-0": Opinion(reference=reference, relaxations=[*RESULTS[:6], None, None, RESULTS[6]]),
        "chgnet": Opinion(reference=reference, relaxations=[*second, None, None, None, None, relaxed(salt(5.7), -1.4)]),
    }
    assessment = assess(CANDIDATES, reference=reference, relaxer=AnsweringRelaxer(RESULTS), opinions=opinions)
    assert assessment.values("energy_above_own_hull_sevennet-0")[:4] == pytest.approx([0.0, 0.05, 0.05, -0.05])
    assert assessment.values("energy_above_own_hull_chgnet")[:3] == pytest.approx([0.0, 0.15, 0.15])
    assert assessment.values("disagreement")[[0, 1, 2, 8]] == pytest.approx([0.0, 0.1, 0.1, 0.1])
    assert np.isnan(assessment.values("disagreement")[3:8]).all()
    assert assessment.table["metastable_to_all"].to_pylist()[:4] == [True, False, False, False]
    values = {m.metric.name: m.value for m in measure(assessment)}
    assert values["sun_agreed"] == Rate(0, len(CANDIDATES))
    assert isinstance(values["disagreement"], Average)
    assert values["disagreement"].mean == pytest.approx(0.075)
    assert assessment.metadata["judges"] == ["sevennet-0", "chgnet"]


def test_what_is_unknown_is_null_not_false(assessment):
    for name in ("unique", "novel", "metastable", "stable", "sun_metastable"):
        assert assessment.table[name].to_pylist()[5:8] == [None, None, None]
    assert assessment.table["sun_metastable"][4].as_py() is None
    assert assessment.table["energy_above_hull_calibrated_generated"].null_count == 9


def test_structure_facts(assessment):
    assert assessment.values("space_group_number")[[0, 1]].tolist() == [225, 221]
    assert assessment.strings("crystal_system")[0] == "cubic"
    assert assessment.values("rmsd")[1] == pytest.approx(0.0, abs=1e-8)  # only the volume changed
    assert assessment.flags("matches_relaxed")[:2].all()
    assert assessment.flags("structure_valid").tolist() == [True] * 5 + [False] + [False] * 2 + [True]
    assert assessment.strings("formula")[:4] == ["NaCl", "NaCl", "NaCl", "KBr"]
    moved = 0.1 * np.linalg.norm(salt(5.6).lattice[0]) / 2  # half of it each, after superposition
    assert assessment.values("rmsd")[8] == pytest.approx(moved * (5.62**3 / 5.6**3) ** (1 / 3), rel=0.02)


def test_parquet_round_trip(assessment, tmp_path):
    path = tmp_path / "crystals.parquet"
    assessment.write(path)
    again = Assessment.read(path)
    assert again.table.equals(assessment.table)
    assert again.metadata == assessment.metadata
    assert again.metadata["residual"] == {"mae": 0.03, "median": 0.02, "p90": 0.07, "n": 100}
    first = again.relaxed(0)
    assert first is not None
    np.testing.assert_array_equal(first.lattice, salt(5.64).lattice)
    assert again.relaxed(5) is None
    assert again.initial(6) is None
    stored = pq.read_schema(path)
    assert stored.names == list(COLUMNS)
    assert stored.field("rmsd").metadata[b"meaning"].startswith("Å".encode())


def test_reading_something_else_is_refused(assessment, tmp_path):
    text = tmp_path / "x.parquet"
    text.write_text("no")
    with pytest.raises(ValueError, match="is not a readable Parquet file"):
        Assessment.read(text)
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), text)
    older = tmp_path / "older.parquet"
    pq.write_table(assessment.table.drop_columns(["volume"]).replace_schema_metadata({"druse_assessment": "{}"}), older)
    with pytest.raises(ValueError, match="another version of Druse"):
        Assessment.read(older)
    with pytest.raises(ValueError, match="not a table of facts"):
        Assessment.read(text)


def test_ranking_puts_new_converged_crystals_first(assessment):
    assert assessment.ranking() == [1, 3, 0, 2, 8]


def test_finished_relaxations_and_prepared_reference(assessment, reference):
    known = KnownStructures(reference.crystals, reference.ids, matcher=OrderedMatcher())
    results = [*RESULTS[:6], None, None, RESULTS[6]]
    again = assess(CANDIDATES, reference=reference, relaxations=results, judge="answers", known=known)
    assert again.table.equals(assessment.table)
    assert again.metadata == assessment.metadata


def test_empty_reference_leaves_novelty_open(reference):
    from dataclasses import replace

    empty = replace(reference, crystals=[], ids=[])
    found = assess([salt(5.5)], reference=empty, relaxer=AnsweringRelaxer(RESULTS))
    assert found.table["novel"].to_pylist() == [None]
    assert found.flags("unique").all()


def test_neither_or_both_ways_to_relax_are_refused(reference):
    with pytest.raises(ValueError, match="either a relaxer or finished relaxations"):
        assess([None], reference=reference)
    with pytest.raises(ValueError, match="either a relaxer or finished relaxations"):
        assess([None], reference=reference, relaxer=AnsweringRelaxer([]), relaxations=[None])
    with pytest.raises(ValueError, match="2 relaxations for 1 crystals"):
        assess([None], reference=reference, relaxations=[None, None])


def test_no_crystals_at_all(reference):
    empty = assess([], reference=reference, relaxer=AnsweringRelaxer([]))
    assert len(empty) == 0
    assert empty.ranking() == []
    assert math.isnan(sun_rate(empty).value)


def test_progress_of_every_stage(reference):
    seen: dict[str, list[tuple[int, int]]] = {}
    assess(
        CANDIDATES,
        reference=reference,
        relaxer=AnsweringRelaxer(RESULTS),
        on_progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    assert seen["relaxation"] == [(i + 1, 7) for i in range(7)]
    for stage in ("energies and symmetry", "uniqueness", "novelty"):
        assert seen[stage][-1] == (9, 9)


def test_calibrated_judges(reference):
    """The straight lines DFT = judged + 0.05 and DFT = judged."""
    cautious = calibration()
    found = assess(
        CANDIDATES,
        reference=replace(reference, calibrations={"generated": cautious, "wbm": replace(cautious, intercept=0)}),
        relaxer=AnsweringRelaxer(RESULTS),
    )
    assert found.values("energy_above_hull_calibrated_generated")[:3] == pytest.approx([0.05, 0.10, 0.10])
    assert found.values("energy_above_hull_calibrated_wbm")[:3] == pytest.approx([0.0, 0.05, 0.05])
    assert found.values("probability_metastable_generated")[:3] == pytest.approx([0.75, 0.5, 0.5])
    assert found.values("probability_metastable_wbm")[:3] == pytest.approx([1.0, 0.75, 0.75])
    assert found.values("probability_near_hull_50_mev_generated")[:3] == pytest.approx([0.5, 0.25, 0.25])
    assert found.values("probability_near_hull_25_mev_generated")[:3] == pytest.approx([0.375, 0.125, 0.125])
    assert found.values("probability_near_hull_25_mev_wbm")[:3] == pytest.approx([0.625, 0.375, 0.375])
    assert found.values("probability_stable_generated")[:3] == pytest.approx([0.25, 0.0, 0.0])
    assert found.values("probability_stable_wbm")[:3] == pytest.approx([0.5, 0.25, 0.25])
    assert np.isnan(found.values("probability_stable_generated")[3:8]).all()  # the fourth stopped early
    assert calibrated_sun_rate(found).count == pytest.approx(0.5)
    assert calibrated_sun_rate(found, against="wbm").count == pytest.approx(0.75)
    assert found.metadata["calibrations"]["generated"]["precision_metastable"] == 0.4
    page = render_report(found)
    assert "P(≤ 0.1), WBM" in page
    assert "6 – 8 %" in page
    assert (
        "1 judged crystal is not relaxed to convergence; the calibrations were measured on converged relaxations, so "
        "that calibrated rates count it as not stable."
    ) in page


def test_crystals_judged_as_they_are_are_beyond_the_calibrations(reference):
    given = [simple_cubic_salt(3.5), POTASSIUM_BROMIDE]
    results = [replace(relaxed(c, -1.95, status="not_converged", message="0 steps"), n_steps=0) for c in given]
    found = assess(
        given,
        reference=replace(reference, calibrations={"generated": calibration()}),
        relaxer=AnsweringRelaxer(results),
    )
    assert sun_rate(found).count == 2
    assert found.strings("status") == ["not_converged"] * 2
    assert found.strings("message") == ["judged as it is (--no-relax), a force of 0.04 eV/Å is left"] * 2
    assert found.table["probability_metastable_generated"].null_count == 2
    assert found.calibrated_on() == []
    assert not [m for m in measure(found) if m.metric.against]
    assert calibration_gap(found).startswith("2 judged crystals are not relaxed to convergence;")
    assert calibration_gap(found).endswith("so that rates are as judged only.")
    page = render_report(found)
    assert "as judged only." in page
    assert "expected from DFT</" not in page


@pytest.mark.parametrize("status", ["overlap", "exploded", "failed"])
def test_only_relaxations_that_mean_something_are_judged(reference, status):
    """The first is a crystal with a fine energy, but two of its atoms have run into each other."""
    results = [
        relaxed(simple_cubic_salt(3.5), -2.2, status=status, message="after 9 steps two atoms are 0.31 Å apart"),
        relaxed(salt(5.64), -2.0),
    ]
    found = assess([simple_cubic_salt(3.4), salt(5.5)], reference=reference, relaxer=AnsweringRelaxer(results))
    assert found.strings("status") == [status, "judged"]
    assert found.strings("message")[0] == "after 9 steps two atoms are 0.31 Å apart"
    assert found.relaxed(0) is None
    assert found.values("n_steps")[0] == 20
    for name in ("energy", "energy_above_hull", "stable", "unique", "novel", "sun_stable"):
        assert found.table[name].is_null().to_pylist() == [True, False]
    assert sun_rate(found).count == 0
    assert [stage.count for stage in funnel(found)][:4] == [2, 2, 1, 1]
    assert found.ranking() == [1]


def test_chemistry_is_information_and_no_filter(reference):
    squeezed, gone = salt(4.4), lost("exploded", "the cell grew without end")
    candidates = [salt(5.5), squeezed, salt(11.0), None]
    results = [relaxed(salt(5.64), -2.0), relaxed(squeezed, -2.0), gone]
    assessment = assess(candidates, reference=reference, relaxer=AnsweringRelaxer(results))
    failed = assessment.sentences("failed_tests")
    assert failed[0] == failed[3] == []
    assert failed[1][0].startswith("bond lengths: Na-Cl 2.20 Å is short")
    assert [line.partition(":")[0] for line in failed[2]] == ["coordination"]  # of the crystal as given
    assert assessment.table["failed_tests"][3].as_py() is None
    assert assessment.strings("charge_balance") == ["balanced", "balanced", "balanced", None]
    assert assessment.table["dimensionality"].to_pylist() == [3, 3, 0, None]
    assert assessment.strings("coordination")[:2] == ["Cl 6, Na 6", "Cl 6, Na 6"]
    assert assessment.flags("metastable").tolist() == [True, True, False, False]
    rates = failed_tests(assessment)
    assert {name: (rate.count, rate.total) for name, rate in rates.items()} == {
        "charge balance": (0, 4),
        "bond lengths": (1, 4),
        "coordination": (1, 4),
    }
    assert plausibility_rate(assessment).count == 1
    assert element_flags(assessment) == {}
    assert plausibility_sentence(assessment) == (
        "Of 4 crystals fail: charge balance 0, bond lengths 1, coordination 1."
    )
    page = render_report(assessment)
    assert '<li class="bad">Fails bond lengths: Na-Cl 2.20 Å is short' in page
    assert '<td>bond lengths</td><td class="n">1 / 4</td><td class="n">25.0 %</td>' in page


def test_flags_of_elements_are_counted(reference, tmp_path):
    toxic = salt(6.0, anion=16, cation=82)
    assessment = assess([toxic, salt(5.6)], reference=reference, relaxations=[None, None])
    assert element_flags(assessment)["toxic"].count == 1
    counted = plausibility_as_json(assessment)
    assert counted["element_flags"]["toxic"]["total"] == 2
    assert counted["failed_tests"]["charge balance"]["count"] == 0
    assessment.write(tmp_path / "a.parquet")
    again = Assessment.read(tmp_path / "a.parquet")
    assert again.sentences("element_flags") == assessment.sentences("element_flags")
    assert again.sentences("element_flags")[0][0].startswith("toxic: Pb")
