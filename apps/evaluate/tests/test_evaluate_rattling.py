from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from druse_crystal.console import Display
from druse_crystal.io import ReadResult, write_cif
from druse_crystal.manifest import Manifest
from druse_evaluate import judging
from druse_evaluate.cli import app
from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluate.judging import relax_all
from druse_evaluate.store import RelaxationStore
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from typer.testing import CliRunner

GIVEN = [salt(5.5), simple_cubic_salt(3.4), salt(5.6, anion=35, cation=19)]
FIRST = [relaxed(salt(5.64), -1.9), relaxed(simple_cubic_salt(3.5), -1.95), lost("exploded", "the cell grew")]
SECOND = [relaxed(salt(5.65), -2.0), relaxed(simple_cubic_salt(3.51), -1.9503)]
SETTINGS = RelaxationConfig(potential="sevennet-0", rattle=True)


class InterruptedAfter(AnsweringRelaxer):
    """Ctrl-C once so many results are out."""

    def __init__(self, results, after: int):
        super().__init__(results)
        self.left = after

    def __call__(self, crystals, *, on_result=None):
        def counting(index, result):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            assert on_result is not None
            on_result(index, result)

        return super().__call__(crystals, on_result=counting)


def run(path, relaxer, config=SETTINGS, given=GIVEN):
    store = RelaxationStore(path / "r.jsonl", judging.relaxation_settings(config))
    return relax_all(given, config=config, store=store, display=Display(quiet=True), relaxer=relaxer)


def facts(relaxations):
    return [None if r is None else (r.status, r.rattled_energy_drop, r.n_steps) for r in relaxations]


def test_the_lower_of_two_is_kept(tmp_path):
    found = run(tmp_path, AnsweringRelaxer(FIRST + SECOND), given=[*GIVEN[:2], None, GIVEN[2]])
    assert facts(found) == [("converged", pytest.approx(0.1), 40), ("converged", 0.0, 20), None, ("exploded", None, 3)]
    assert found[0].energy == SECOND[0].energy
    assert found[1].energy == FIRST[1].energy


@pytest.mark.parametrize("after", range(6))
def test_wherever_it_is_interrupted_it_continues(tmp_path, after):
    every = FIRST + SECOND
    if after < len(every):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, InterruptedAfter(every, after))
    else:
        run(tmp_path, AnsweringRelaxer(every))
    rest = AnsweringRelaxer(every[after:])
    assert facts(run(tmp_path, rest)) == facts(run(tmp_path / "fresh", AnsweringRelaxer(every)))
    assert rest.n_given == len(every) - after


def test_rattling_starts_from_relaxations_that_are_there(tmp_path):
    plain = run(tmp_path, AnsweringRelaxer(FIRST), config=replace(SETTINGS, rattle=False))
    assert [r.rattled_energy_drop for r in plain] == [None, None, None]
    second = AnsweringRelaxer(SECOND)
    run(tmp_path, second)
    assert second.n_given == 2
    assert facts(run(tmp_path, AnsweringRelaxer([]), config=replace(SETTINGS, rattle=False))) == facts(plain)


@pytest.mark.parametrize("rattle", [True, False])
def test_facts_and_metric_only_when_asked_for(tmp_path, rattle):
    assessment = judging.judge(
        [ReadResult(source=str(i), crystal=crystal) for i, crystal in enumerate([*GIVEN, None])],
        out=tmp_path,
        config=EvaluationConfig(relaxation=replace(SETTINGS, rattle=rattle)),
        display=Display(quiet=True),
        manifest=Manifest(),
        reference=small_reference(),
        relaxer=AnsweringRelaxer(FIRST + SECOND),
    )
    assert len(assessment) == 4
    expected = [pytest.approx(0.1), 0.0, None, None] if rattle else [None] * 4
    assert assessment.table["rattled_energy_drop"].to_pylist() == expected
    for name in ("metrics.json", "manifest.json"):
        assert ('"left_basin"' in (tmp_path / name).read_text()) == rattle
    page = (tmp_path / "report.html").read_text()
    assert ("left their basin" in page) == rattle
    assert ("100 meV/atom lower" in page) == rattle
    assert ("the same place" in page) == rattle


def test_relax_command(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "make_relaxer_for", lambda config: AnsweringRelaxer(FIRST + SECOND))
    for i, crystal in enumerate(GIVEN):
        write_cif(tmp_path / "in" / f"{i}.cif", crystal, symprec=None)
    found = CliRunner().invoke(app, ["relax", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--rattle", "-q"])
    assert found.exit_code == 0, found.output
    drops = pq.read_table(tmp_path / "out" / "relaxations.parquet")["rattled_energy_drop"].to_pylist()
    assert drops == [pytest.approx(0.1), 0.0, None]


def test_without_relaxation_there_is_nothing_to_rattle(tmp_path):
    write_cif(tmp_path / "a.cif", GIVEN[0], symprec=None)
    arguments = ["evaluate", str(tmp_path / "a.cif"), "--out", str(tmp_path / "out"), "--no-relax", "--rattle", "-q"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert "leave out one of the two" in found.output
