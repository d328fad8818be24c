import json

import numpy as np
import pytest
from druse_benchmarks import chemical_systems as bench
from druse_benchmarks.chemical_systems import SYSTEMS, ExplorationConfig
from druse_benchmarks.exploration import ORDER, Exploration, combined_hull, explorations, picture, table
from druse_benchmarks.findings import Finding
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_evaluate.config import EvaluationConfig
from druse_evaluation.testing import relaxed, salt, simple_cubic_salt, small_reference

QUIET = Display(quiet=True)


class Shapes:
    """Proposes sodium chloride: cells that grow, of rock salt or of caesium chloride."""

    def __init__(self, name, make):
        self.name, self.make = name, make

    def __call__(self, n, *, target=None, seed=0):
        assert target == "Cl-Na"
        for i in range(n):
            if i == 3 and self.name == "ion exchange":
                raise ValueError("no exchange of ions leads there: give more parents")
            yield self.make(i)


class Relaxing:
    """20 steps each; caesium chloride comes to lie 0.1 below the hull."""

    name = "answers"

    def __init__(self):
        self.n_given = 0

    def __call__(self, crystals, *, on_result=None):
        self.n_given += len(crystals)
        answers = [relaxed(c, -2.1 if np.allclose(c.lattice, np.diag(np.diag(c.lattice))) else -1.95) for c in crystals]
        if on_result is not None:
            for i, answer in enumerate(answers):
                on_result(i, answer)
        return answers


class KnowsAll:
    elements = frozenset(range(1, 101))


@pytest.fixture
def relaxers(monkeypatch):
    made = []

    def make(config):
        made.append(Relaxing())
        return made[-1]

    monkeypatch.setattr(bench, "make_relaxer_for", make)
    monkeypatch.setattr(bench, "load_potential", lambda name: KnowsAll)
    monkeypatch.setattr(bench, "load_reference", lambda name, potential: small_reference())
    shapes = {
        "pyxtal": lambda parents: Shapes("random search", lambda i: simple_cubic_salt(3.5 + i / 100)),
        "ion-exchange": lambda parents: Shapes("ion exchange", lambda i: salt(5.5 + i / 100)),
    }
    for name, proposer in shapes.items():
        monkeypatch.setitem(bench.CLASSICAL, name, proposer)
    return made


def run(tmp_path, methods, systems=("Na-Cl",), budget=100):
    return bench.chemical_systems(
        ExplorationConfig(methods=methods, systems=systems, budget=budget),
        evaluation=EvaluationConfig(),
        parents=CrystalDataset(ids=["a"], crystals=[salt(5.6)], split=["train"]),
        parents_hash="small",
        out=tmp_path / "results",
        work=tmp_path / "work",
        display=QUIET,
    )


def row(folder, name):
    lines = (folder / "table.md").read_text().splitlines()
    return [cell.strip() for line in lines if line.startswith(f"| {name} |") for cell in line.strip("|").split("|")[1:]]


def test_methods_come_one_by_one_and_share_a_hull(tmp_path, relaxers):
    folder = run(tmp_path, ("ion-exchange",))
    # three crystals of 21 calls, then no more: all are the known rock salt, 0.05 above the hull
    assert row(folder, "ion-exchange")[:5] == ["1", "63", "3", "1", "0"]
    assert "stopped before the budget was spent: ion-exchange in Cl-Na (no exchange of ions leads there)" in (
        (folder / "table.md").read_text()
    )
    run(tmp_path, ("pyxtal",))
    # four crystals of 21 calls, the same structure four times, new and 0.1 eV/atom below the hull
    assert row(folder, "pyxtal")[:5] == ["1", "84", "4", "1", "1"]
    assert row(folder, "pyxtal")[-1] == "1"
    assert row(folder, "Cl-Na") == ["0 / 0*", "1 / 1"]
    content = json.loads((folder / "pyxtal" / "Cl-Na.json").read_text())
    assert content["settings"]["budget"] == 100
    assert content["seed"] == 0
    assert content["results"]["force_calls"] == 84
    assert content["judge"]["reference"] == "small world"
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_finished_is_kept(tmp_path, relaxers):
    run(tmp_path, ("pyxtal",))
    folder = run(tmp_path, ("pyxtal",))
    assert [relaxer.n_given for relaxer in relaxers] == [5, 0]  # the fifth showed that the budget was spent
    run(tmp_path, ("pyxtal",), budget=210)
    assert relaxers[-1].n_given < 10
    assert row(folder, "pyxtal")[:3] == ["1", "210", "10"]


def test_other_budgets_stay_out_of_the_table(tmp_path, relaxers):
    run(tmp_path, ("pyxtal",), budget=50)
    folder = run(tmp_path, ("ion-exchange",))
    assert row(folder, "pyxtal") == []


def finding(formula, energy, above, **options):
    return Finding(calls=10, formula=formula, formation_energy=energy, energy_above_hull=above, **options)


def test_the_hull_of_everything():
    """What another method found lower is what counts, and what cannot be believed does not."""
    hull = small_reference().hull
    new = {"unique": True, "novel": True}
    contents = [
        {
            "settings": {"system": "Cl-Na", "method": method},
            "results": {"ended": ""},
            "findings": [f.__dict__ for f in findings],
        }
        for method, findings in {
            "druse": [finding("NaCl", -2.05, -0.05, **new), finding("NaCl3", -1.2, -0.2, **new)],
            "pyxtal": [
                finding("NaCl", -2.2, -0.2, **new),
                finding("NaCl", -2.197, -0.197, **new),
                finding("NaCl", -2.198, -0.198, unique=True, novel=False),
                finding("NaCl", -3.0, -1.0, **new),
                Finding(calls=3),
            ],
        }.items()
    ]
    druse, pyxtal = explorations(contents, hull)
    assert druse.on_hull == [False, True]
    assert pyxtal.on_hull == [True, True, False, False, False]
    assert combined_hull(hull, [Finding(calls=1)]) is hull
    assert combined_hull(hull, pyxtal.findings).hull_energy("NaCl") == pytest.approx(-2.2)


def test_curves_grow_with_the_budget():
    found = [
        Exploration(system="Cl-Na", method="druse", findings=[finding("NaCl", -2, 0, unique=True, novel=True)] * 3,
                    ended="", on_hull=[True, False, True]),
        Exploration(system="Cl-K-Na", method="druse", findings=[], ended="", on_hull=[]),
    ]  # fmt: skip
    figure = picture(found, budget=35)
    near, on = (np.asarray(figure.axes[i].lines[0].get_ydata(), dtype=float) for i in (0, 2))
    assert (near[0], near[-1], max(np.diff(near))) == (0, 3, 1)
    assert (on[0], on[-1]) == (0, 2)
    x = np.asarray(figure.axes[0].lines[0].get_xdata(), dtype=float)
    assert x[np.flatnonzero(np.diff(near))[0] + 1] == pytest.approx(10, abs=35 / 200)
    judge = {"reference": "r", "residual": {"mae": None}, "calibrations": {}}
    assert "| Cl-Na | 3 / 2 |" in table(found, budget=35, judge=judge)


def test_the_systems_are_three_of_each_size():
    assert [system.count("-") + 1 for system in SYSTEMS] == [3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert len(ORDER) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ("magic",)}, "no method 'magic'"),
        ({"systems": ("Li-Xx",)}, "'Xx' in 'Li-Xx' is no element"),
        ({"systems": ("Li",)}, "at least two"),
        ({"budget": 0}, "at least 1"),
    ],
)
def test_bad_settings(options, words):
    with pytest.raises(ValueError, match=words):
        ExplorationConfig(**options)


def test_elements_that_nobody_knows(tmp_path, relaxers):
    with pytest.raises(ValueError, match="the model does not know U: leave U-Cl-Na out"):
        run(tmp_path, ("pyxtal",), systems=("U-Cl-Na",))
    with pytest.raises(ValueError, match="the reference small world does not know Li"):
        run(tmp_path, ("pyxtal",), systems=("Li-Cl",))
