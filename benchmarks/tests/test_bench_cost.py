import json
from dataclasses import dataclass

import numpy as np
import pytest
from druse.screening import Screening
from druse_benchmarks import cost as bench
from druse_benchmarks import cost_curve, screened
from druse_benchmarks import unconditional as unconditional_bench
from druse_benchmarks.cost_curve import Costs, common_budget, found_within, rates
from druse_benchmarks.findings import MEASURES
from druse_benchmarks.screened import EXTRA_CALLS, Screened
from druse_benchmarks.sources import make_sources
from druse_crystal.console import Display
from druse_crystal.dataset import load_embedded
from druse_crystal.io import ReadResult
from druse_crystal.manifest import Manifest
from druse_evaluate import judging
from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from druse_generate.config import SamplerConfig

GIVEN = [salt(5.5), simple_cubic_salt(3.4), salt(5.6, anion=35, cation=19)]
ANSWERS = [relaxed(salt(5.64), -2.0), relaxed(simple_cubic_salt(3.5), -1.95), lost("exploded", "the cell grew")]
QUIET = Display(quiet=True)


@dataclass(frozen=True)
class Given:
    name: str
    extra: int = 0

    def __call__(self, num, *, seed, folder, display, manifest):
        info = {EXTRA_CALLS: self.extra} if self.extra else {}
        return [ReadResult(source=f"{i}", crystal=c, error=None, info=info) for i, c in enumerate(GIVEN[:num])]


@pytest.fixture
def relaxers(monkeypatch):
    """Each gives the answers over and over."""
    made = []

    def make(config):
        made.append(AnsweringRelaxer(ANSWERS * 20))
        return made[-1]

    for module in (bench, unconditional_bench):
        monkeypatch.setattr(module, "load_reference", lambda name, potential: small_reference())
    monkeypatch.setattr(bench, "make_relaxer_for", make)
    monkeypatch.setattr(judging, "make_relaxer_for", make)
    return made


def run(tmp_path, *sources, max_steps=500, num=4):
    return bench.cost(
        sources,
        num=num,
        seed=3,
        timed=2,
        evaluation=EvaluationConfig(relaxation=RelaxationConfig(max_steps=max_steps)),
        out=tmp_path / "results",
        work=tmp_path / "work",
        display=QUIET,
    )


def cells(folder, label):
    line = next(x for x in (folder / "table.md").read_text().splitlines() if x.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_record(tmp_path, relaxers):
    folder = run(tmp_path, Given("pyxtal"))
    run(tmp_path, Given("druse-screened", extra=4))
    # 21 + 21 + 4 force calls, and 4 more for each screened crystal; the second crystal counts
    assert (folder / "table.md").read_text().startswith("|  | druse-screened | pyxtal |\n")
    assert cells(folder, "force calls for a crystal") == ["14.5", "11.5"]
    assert "within 46 force calls" in (folder / "table.md").read_text()
    # within 46 force calls the screened method has paid for one crystal only, which is a known one
    near = cells(folder, "for 1,000 force calls: at most 0.1 eV/atom above the hull (as judged)")
    assert [cell.split()[0] for cell in near] == ["0.00", f"{1000 / 46:.2f}"]
    content = json.loads((folder / "pyxtal.json").read_text())
    assert [f["calls"] for f in content["findings"]] == [21, 21, 4, 0]
    assert content["results"]["timing"]["crystals"] == 2
    assert content["seed"] == 3
    assert json.loads((folder / "rates.json").read_text())["budget"] == 46
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_relaxations_of_unconditional_are_taken_as_they_are(tmp_path, relaxers):
    unconditional_bench.unconditional(
        [Given("pyxtal")],
        num=4,
        seed=3,
        evaluation=EvaluationConfig(),
        out=tmp_path / "results",
        work=tmp_path / "work",
        display=QUIET,
    )
    store = (tmp_path / "work" / "pyxtal" / "relaxations.jsonl").read_bytes()
    run(tmp_path, Given("pyxtal"))
    assert (tmp_path / "work" / "pyxtal" / "relaxations.jsonl").read_bytes() == store
    assert relaxers[-1].n_given == 1 + 3  # the timing, and nothing else
    run(tmp_path, Given("pyxtal"))
    assert relaxers[-1].n_given == 0  # the timing is kept too


def test_other_judges_stay_out(tmp_path, relaxers):
    run(tmp_path, Given("airss"), max_steps=7)
    folder = run(tmp_path, Given("druse"))
    assert (folder / "table.md").read_text().startswith("|  | druse |\n")


def test_budgets_pay_for_crystals_in_order():
    """Against a plain loop."""
    rng = np.random.default_rng(0)
    cost, worth = rng.integers(0, 9, (5, 40)).astype(float), rng.random((5, 40))
    grid = np.array([0.0, 3.0, 50.0, 1e9])
    found = found_within(cost, worth, grid)
    for r in range(5):
        for g, budget in enumerate(grid):
            spent = total = 0.0
            for c, w in zip(cost[r], worth[r], strict=True):
                if spent + c > budget:
                    break
                spent, total = spent + c, total + w
            assert found[r, g] == pytest.approx(total)


def costs(n=400, share=0.25, **options):
    worth = (np.arange(n) % round(1 / share) == 0).astype(float)
    given = {"calls": np.full(n, 50.0), "crystal_seconds": 10.0, "call_seconds": 0.4} | options
    return Costs(name="druse", worth=dict.fromkeys(MEASURES, worth), **given)  # ty: ignore[invalid-argument-type]


def test_rates_and_their_intervals():
    """A quarter of all crystals of 50 calls and 30 core-seconds counts: the interval is that of a binomial share."""
    found = rates(costs(), 20000.0, "near")
    assert found["per_1000_calls"][0] == pytest.approx(5.0)
    assert found["per_core_hour"][0] == pytest.approx(0.25 * 3600 / 30)
    half = 1.96 * (0.25 * 0.75 / 400) ** 0.5 * 1000 / 50
    middle, low, high = found["per_1000_calls"]
    assert (middle - low, high - middle) == pytest.approx((half, half), rel=0.15)
    other = costs(n=100)
    assert common_budget([costs(), other]) == 5000
    assert rates(costs(), 5000.0, "near")["per_1000_calls"][0] == pytest.approx(5.0)


def test_a_budget_that_uses_up_all_crystals_does_not_bend_the_interval():
    """Crystals of 1 to 199 calls, all of which count: the number of renewals, 200 on average, has a known spread."""
    calls = np.random.default_rng(1).integers(1, 200, 200).astype(float)
    budget = calls.sum()
    middle, low, high = rates(costs(n=200, share=1.0, calls=calls), budget, "near")["per_1000_calls"]
    assert middle == pytest.approx(200 / budget * 1000)
    half = 1.96 * calls.std() / calls.mean() * 200**0.5 / budget * 1000
    assert (middle - low, high - middle) == pytest.approx((half, half), rel=0.2)


def test_the_picture_has_room_for_every_curve():
    figure = cost_curve.picture([costs(share=0.1), costs(share=0.5)], budget=20000.0)
    for panel in figure.axes:
        assert panel.get_ylim()[0] == 0
        assert panel.get_ylim()[1] >= max(np.asarray(line.get_ydata()).max() for line in panel.lines)
    assert [np.asarray(line.get_ydata())[-1] for line in figure.axes[0].lines] == [40, 200]


def test_nothing_for_nothing():
    free = costs(n=4, calls=np.zeros(4), crystal_seconds=0.0)
    assert rates(free, 0.0, "near")["per_core_hour"][0] == 0.0
    assert cost_curve.picture([free], budget=0.0).axes


def test_screened_crystals(tmp_path, tiny_model, monkeypatch):
    asked = []

    def screen(crystals, num, **_):
        asked.append(len(crystals))
        return Screening(chosen=(5, 1), counts={"drawn": len(crystals), "usable": 7, "chosen": 2})

    monkeypatch.setattr(screened, "load_potential", lambda name, device: None)
    monkeypatch.setattr(screened, "load_reference", lambda name, potential: None)
    monkeypatch.setattr(screened, "screen", screen)
    (source,) = make_sources(
        ["druse-screened"],
        parents=load_embedded(),
        parents_hash="",
        held_out=load_embedded(),
        sampler=SamplerConfig(steps=4),
        model=tiny_model,
    )
    assert isinstance(source, Screened)
    for _ in range(2):
        found = source(2, seed=0, folder=tmp_path / "druse-screened", display=QUIET, manifest=Manifest())
        assert [r.source for r in found] == ["druse-screened-00001", "druse-screened-00005"]
        assert [r.info[EXTRA_CALLS] for r in found] == [4, 4]  # seven energies for two crystals
    assert asked == [8]
    assert (tmp_path / "druse" / "generated.jsonl").exists()  # where the unscreened model keeps its crystals


@pytest.mark.parametrize("options", [{"num": 0}])
def test_bad_numbers(tmp_path, relaxers, options):
    with pytest.raises(ValueError, match="at least 1"):
        run(tmp_path, Given("druse"), **options)
