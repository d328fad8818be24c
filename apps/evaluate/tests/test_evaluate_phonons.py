import json
import sys

import pytest
from druse_crystal.console import Display
from druse_crystal.io import ReadResult, write_cif
from druse_crystal.manifest import Manifest
from druse_energetics.phonons import DynamicalStability
from druse_evaluate import judging
from druse_evaluate.cli import app
from druse_evaluate.config import EvaluationConfig, with_options
from druse_evaluation.metrics import measure
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from typer.testing import CliRunner

GIVEN = [salt(5.5), simple_cubic_salt(3.4), salt(5.6, anion=35, cation=19), salt(6.5, anion=35, cation=19)]
RELAXED = [
    relaxed(salt(5.64), -1.9),
    relaxed(simple_cubic_salt(3.5), -1.95),
    lost("exploded", "the cell grew"),
    relaxed(salt(6.6, anion=35, cation=19), -1.95),
]
ANSWERS = [
    DynamicalStability(lowest_frequency=2.5),
    DynamicalStability(lowest_frequency=-1.25),
    DynamicalStability(lowest_frequency=None, reason="not checked: the 2 x 2 x 2 supercell has 400 atoms"),
]


class Check:
    """Gives prepared answers; Ctrl-C after so many."""

    def __init__(self, answers, interrupted: bool = False):
        self.answers = list(answers)
        self.interrupted = interrupted

    def __call__(self, crystal):
        if not self.answers and self.interrupted:
            raise KeyboardInterrupt
        return self.answers.pop(0)


@pytest.fixture
def judge(monkeypatch):
    def run(out, check, phonons=True):
        monkeypatch.setattr(judging, "make_phonon_check_for", lambda config: check)
        return judging.judge(
            [ReadResult(source=str(i), crystal=crystal) for i, crystal in enumerate([*GIVEN, None])],
            out=out,
            config=EvaluationConfig(phonons=phonons),
            display=Display(quiet=True),
            manifest=Manifest(),
            reference=small_reference(),
            relaxer=AnsweringRelaxer(RELAXED),
        )

    return run


def test_facts_metrics_and_report(judge, tmp_path):
    found = judge(tmp_path, Check(ANSWERS))
    assert found.table["lowest_frequency"].to_pylist() == [2.5, -1.25, None, None, None]
    assert found.table["dynamically_stable"].to_pylist() == [True, False, None, None, None]
    messages = found.strings("phonons_message")
    assert messages[:2] == ["", ""]
    assert messages[2] == messages[4] == "not checked: there is no converged relaxation"
    assert messages[3] == ANSWERS[2].reason
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert [metrics[name]["count"] for name in ("dynamics_checked", "dynamically_stable")] == [2, 1]
    assert metrics["dynamically_stable"]["total"] == 5
    page = (tmp_path / "report.html").read_text()
    for words in ("+2.50 THz", "-1.25 THz", "dynamically unstable", "supercell has 400 atoms"):
        assert words in page


def test_nothing_about_modes_unless_asked_for(judge, tmp_path):
    found = judge(tmp_path, Check([]), phonons=False)
    for name in ("lowest_frequency", "dynamically_stable", "phonons_message"):
        assert found.table[name].null_count == len(found)
    assert not {m.metric.name for m in measure(found)} & {"dynamics_checked", "dynamically_stable"}
    page = (tmp_path / "report.html").read_text()
    assert "THz" not in page.replace("lowest mode, THz", "")
    assert "dynamically stable" not in page
    assert not (tmp_path / "phonons.jsonl").exists()


@pytest.mark.parametrize("after", range(4))
def test_wherever_it_is_interrupted_it_continues(judge, tmp_path, after):
    if after < len(ANSWERS):
        with pytest.raises(KeyboardInterrupt):
            judge(tmp_path, Check(ANSWERS[:after], interrupted=True))
    else:
        judge(tmp_path, Check(ANSWERS))
    rest = Check(ANSWERS[after:])
    again = judge(tmp_path, rest)
    assert rest.answers == []
    assert again.table.equals(judge(tmp_path / "fresh", Check(ANSWERS)).table)


def test_a_foreign_journal_is_refused(judge, tmp_path):
    judge(tmp_path, Check(ANSWERS))
    first = (tmp_path / "phonons.jsonl").read_text().splitlines()[0]
    (tmp_path / "phonons.jsonl").write_text(f'{first}\n{{"key": "a"}}\n')
    with pytest.raises(ValueError, match="does not hold phonons"):
        judge(tmp_path, Check(ANSWERS))


def test_options_win_over_settings():
    settings = with_options(EvaluationConfig(), reference=None, rattle=True, phonons=True)
    assert settings.phonons
    assert settings.relaxation.rattle
    assert with_options(settings, reference=None, rattle=None, phonons=None) == settings


def test_without_phonopy_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    write_cif(tmp_path / "a.cif", GIVEN[0], symprec=None)
    arguments = ["evaluate", str(tmp_path / "a.cif"), "--out", str(tmp_path / "out"), "--phonons", "-q"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert "pip install 'druse-energetics[phonons]'" in found.output
    assert not (tmp_path / "out").exists()
