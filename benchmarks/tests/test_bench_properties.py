"""Both questions about properties, in a small world: four crystals drawn, three relaxations, made-up predictors."""

import json

import numpy as np
import pytest
from druse_benchmarks import asking as bench
from druse_benchmarks.answers import Answers
from druse_benchmarks.asking import Asking
from druse_benchmarks.magnets import element_counts, magnets
from druse_benchmarks.properties import properties
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_evaluate import judging
from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from druse_generate.config import GenerateConfig, SamplerConfig

# known and on the hull, novel and 0.05 eV/atom above it, novel and on it, nothing
ANSWERS = [
    relaxed(salt(5.64), -2.0),
    relaxed(simple_cubic_salt(3.5), -1.95),
    relaxed(salt(6.6, cation=19, anion=35), -1.9),
    lost("exploded", "the cell grew"),
]
DATASET = CrystalDataset(
    ids=["a", "b", "c", "d"], crystals=[salt(5.6)] * 4, labels={"dft_mag_density": [0.1, 0.0, 0.05, np.nan]}
)
MAGNET = "magnetic-density-0.1"


@pytest.fixture
def world(monkeypatch):
    """How often each kind of work was done: relaxers made, crystals predicted."""
    done = {"relaxers": 0, "predicted": 0}

    def make(config):
        done["relaxers"] += 1
        return AnsweringRelaxer(ANSWERS)

    monkeypatch.setattr(judging, "make_relaxer_for", make)
    monkeypatch.setattr(bench, "load_reference", lambda name, potential: small_reference())
    return done


@pytest.fixture
def asking(world, tiny_adapted, tmp_path):
    def moments(crystals):  # potassium bromide is the magnet
        world["predicted"] += len(crystals)
        return np.array([0.104 if 35 in c.atomic_numbers else 0.02 for c in crystals])

    def nothing_to_tell(crystals):
        return np.full(len(crystals), np.nan)

    def make(max_steps=500, **options):
        return Asking(
            generation=GenerateConfig(num=4, seed=1, sampler=SamplerConfig(steps=4, corrector_steps=0)),
            model=tiny_adapted,
            evaluation=EvaluationConfig(relaxation=RelaxationConfig(max_steps=max_steps)),
            work=tmp_path / "work",
            display=Display(quiet=True),
            predict={
                "dft_mag_density": moments,
                "ml_bulk_modulus": nothing_to_tell,
                "dft_band_gap": lambda crystals: np.array([c.volume / 100 for c in crystals]),
            },
            **options,
        )

    return make


def rows(folder):
    """Cells of the lines of both tables, by the first one."""
    lines = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(first, rest) for first, *rest in cells]


def run(names, asking, tmp_path):
    return properties(names, asking=asking, dataset=DATASET, dataset_name="small", out=tmp_path / "results")


def test_cases_come_one_by_one_and_are_compared_with_nothing(asking, world, tmp_path):
    folder = run([MAGNET], asking(), tmp_path)
    content = json.loads((folder / f"{MAGNET}.json").read_text())
    assert content["settings"]["asked"] == ["dft_mag_density=0.1"]
    assert content["settings"]["generate"]["properties"]["guidance"] == 2.0
    assert content["crystals"]["obtained"] == {"dft_mag_density": [0.02, 0.02, 0.104, None]}
    results = content["results"]
    assert results["predictor_calls"] == 3
    assert results["all_hit"]["count"] == 1
    assert (results["distinct_hits"], results["distinct_novel_hits"], results["sun_hits"]) == (1, 1, 1)
    (_, obtained), (_, calls) = rows(folder)
    assert obtained[1:3] == ["0.02 [0.02, 0.062]", ""]
    assert [cell.split(" [")[0] for cell in calls] == ["33.3", "", "33.3", "3"]
    assert calls[2].endswith("/ 0")

    run(["nothing"], asking(), tmp_path)
    nothing = json.loads((folder / "nothing.json").read_text())
    assert len(nothing["crystals"]["obtained"]) == 7
    assert nothing["crystals"]["obtained"]["energy_above_hull"] == [0.0, 0.05, 0.0, None]
    (_, obtained), (_, calls) = rows(folder)
    assert obtained[2] == "0.02 [0.02, 0.062]"
    assert [cell.split(" %")[0] for cell in obtained[3:5]] == ["25.0", "25.0"]
    assert obtained[5] == "1 / 1"
    assert calls[1].split(" [")[0] == "33.3"
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_done_twice(asking, world, tmp_path):
    folder = run([MAGNET], asking(), tmp_path)
    table = (folder / "table.md").read_text()
    assert world == {"relaxers": 1, "predicted": 3}
    run([MAGNET], asking(), tmp_path)
    assert world == {"relaxers": 1, "predicted": 3}
    assert (folder / "table.md").read_text() == table
    with pytest.raises(ValueError, match="other settings"):
        run([MAGNET], asking(guidance=1.0), tmp_path)


def test_crystals_judged_in_another_way_are_not_compared(asking, tmp_path):
    run(["nothing"], asking(max_steps=7), tmp_path)
    folder = run([MAGNET], asking(), tmp_path)
    (_, obtained), (_, calls) = rows(folder)
    assert obtained[2] == obtained[4] == calls[1] == ""


def test_what_the_model_has_not_learnt_is_refused_before_anything_is_drawn(asking, tmp_path):
    with pytest.raises(ValueError, match="knows no property 'dft_band_gap': it knows dft_mag_density"):
        run(["nothing", "band-gap-3"], asking(), tmp_path)
    assert not (tmp_path / "work").exists()


def test_magnets_take_the_crystals_that_were_not_asked_from_properties(asking, world, tmp_path):
    run(["nothing"], asking(), tmp_path)
    before = dict(world)
    folder = magnets(["nothing"], asking=asking(), out=tmp_path / "results")
    assert world == before
    magnets(["magnets-of-low-hhi", "magnets"], asking=asking(), out=tmp_path / "results")
    content = json.loads((folder / "magnets-of-low-hhi.json").read_text())
    assert content["settings"]["asked"] == ["dft_mag_density>=0.2", "hhi_score<=1500"]
    assert content["crystals"]["obtained"].keys() == {"dft_mag_density", "hhi_score"}
    assert content["results"]["all_hit"]["count"] == 0
    table = (folder / "table.md").read_text()
    assert "| K | 33.3% | 33.3% | 33.3% |" in table
    assert "| Na | 66.7% | 66.7% | 66.7% |" in table
    assert "| Gd | 0.0% | 0.0% | 0.0% |" in table


def test_equal_crystals_count_once_and_only_new_ones_as_novel():
    answers = Answers(
        formulas=["GdCo5", "GdCo5", "Fe", None, "Co3O4"],
        flags={
            "unique": np.array([True, False, True, False, True]),
            "novel": np.array([True, True, False, False, True]),
            "sun": np.array([True, False, False, False, False]),
        },
        obtained={
            "dft_mag_density": [0.2, 0.21, 0.19, None, 0.1],
            "hhi_score": [3000.0, 3000.0, None, None, 3100.0],
        },
    )
    close = ["dft_mag_density=0.2"]
    assert answers.calls == 4
    assert (answers.share(close).count, answers.share(close).total) == (3, 5)
    assert [answers.distinct(close, flag=flag) for flag in (None, "novel", "sun")] == [2, 1, 1]
    assert answers.hit([*close, "hhi_score>=2900"]).tolist() == [True, True, False, False, False]
    assert element_counts(answers) == {"Co": 3, "Gd": 2, "Fe": 1, "O": 1}
    again = Answers.from_json(json.loads(json.dumps(answers.as_json())))
    assert again.as_json() == answers.as_json()
