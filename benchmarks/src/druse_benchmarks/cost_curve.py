"""What crystals cost and what they are worth, against a budget, with bootstrap intervals."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.console import Display
from druse_evaluation.summary import judge_sentence
from jaxtyping import Float64
from matplotlib.figure import Figure

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.findings import MEASURES, Finding, measure
from druse_benchmarks.record import judged_by, made_alike, markdown_table, write_record

RESAMPLES = 1000
ORDER = ("druse", "druse-screened", "substitution", "iterated-substitution", "ion-exchange", "pyxtal", "airss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Costs:
    """The crystals of one method in the order in which they were proposed.

    Attributes:
        name: of the method.
        calls: force calls of each.
        worth: by measure (see ``MEASURES``) what each counts.
        crystal_seconds: processor time to make one.
        call_seconds: processor time of a force call.
    """

    name: str
    calls: Float64[np.ndarray, " n"]
    worth: Mapping[str, Float64[np.ndarray, " n"]]
    crystal_seconds: float
    call_seconds: float

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Costs":
        """From the content of a JSON file."""
        findings = [Finding(**finding) for finding in content["findings"]]
        timing = content["results"]["timing"]
        return cls(
            name=content["settings"]["method"],
            calls=np.array([finding.calls for finding in findings], dtype=np.float64),
            worth={name: np.array([measure(f, name) for f in findings], dtype=np.float64) for name in MEASURES},
            crystal_seconds=timing["crystal_seconds"],
            call_seconds=timing["call_seconds"],
        )

    @property
    def core_hours(self) -> Float64[np.ndarray, " n"]:
        """Of each crystal: to make it and to relax it."""
        return (self.crystal_seconds + self.call_seconds * self.calls) / 3600

    def resampled(self, seed: int = 0) -> np.ndarray:
        """(resamples, 2 n) positions of crystals drawn with replacement; twice as many, so that they do not run out."""
        n = len(self.calls)
        return np.random.default_rng(seed).integers(n, size=(RESAMPLES, 2 * n))


def found_within(
    cost: Float64[np.ndarray, "r n"], worth: Float64[np.ndarray, "r n"], grid: Float64[np.ndarray, " g"]
) -> Float64[np.ndarray, "r g"]:
    """Worth of the crystals that each budget pays for, one after the other, until the next would exceed it.

    Args:
        cost: of each crystal in its order, a row for each resample.
        worth: of each.
        grid: budgets.
    """
    total = np.concatenate([np.zeros((len(worth), 1)), np.cumsum(worth, axis=1)], axis=1)
    spent = np.cumsum(cost, axis=1)
    return np.stack([t[np.searchsorted(s, grid, side="right")] for t, s in zip(total, spent, strict=True)])


def interval(values: Float64[np.ndarray, "r g"]) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and the 97.5th percentile of the rows."""
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return low, high


def common_budget(costs: Sequence[Costs]) -> float:
    """Force calls that every method has spent."""
    return min(float(c.calls.sum()) for c in costs)


def rates(costs: Costs, budget: float, name: str) -> dict[str, tuple[float, float, float]]:
    """Worth for 1,000 force calls and for a core-hour within a budget, each with its 95 % bootstrap interval.

    Args:
        costs: of one method.
        budget: force calls.
        name: of the measure.
    """
    grid = np.array([budget])

    def per(index: np.ndarray) -> dict[str, np.ndarray]:
        calls = costs.calls[index]
        worth = found_within(calls, costs.worth[name][index], grid)
        hours = found_within(calls, costs.core_hours[index], grid)
        return {
            "per_1000_calls": 1000 * worth / max(budget, 1.0),
            "per_core_hour": np.divide(worth, hours, out=np.zeros_like(worth), where=hours > 0),
        }

    measured, resampled = per(np.arange(len(costs.calls))[None]), per(costs.resampled())
    found = {}
    for key, value in measured.items():
        low, high = interval(resampled[key])
        found[key] = (float(value[0, 0]), float(low[0]), float(high[0]))
    return found


def write_costs(out: Path, name: str, *, like: str, display: Display) -> Path:
    """Write table, picture and section of the README from the JSON files of all methods that are there.

    Args:
        out: folder of all results.
        name: of the benchmark.
        like: method whose judge and machine count; files of others stay out.
        display: told which.
    """
    folder = out / name
    files = sorted(file for file in folder.glob("*.json") if file.stem != "rates")
    contents = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    for other in list(contents):
        if not made_alike(contents[other], contents[like], made_by=_made_by):
            display.warn(f"{folder / (other + '.json')} has another judge, seed or machine than {like} and stays out")
            del contents[other]
    costs = sorted((Costs.read(content) for content in contents.values()), key=lambda c: _rank(c.name))
    budget = common_budget(costs)
    measured = {c.name: {measure: rates(c, budget, measure) for measure in MEASURES} for c in costs}
    return write_record(
        out,
        name,
        documents={"rates": {"budget": budget, "resamples": RESAMPLES, "rates": measured}},
        table=table(costs, measured, budget=budget, content=contents[like]),
        picture=picture(costs, budget=budget),
        caption="Metastable, unique, novel structures against force calls and against core-hours",
    )


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def _made_by(content: Mapping[str, Any]) -> list[Any]:
    timing = content["results"]["timing"]
    return [*judged_by(content), *(timing[key] for key in ("processor", "threads")), content["seed"]]


def table(
    costs: Sequence[Costs],
    measured: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    *,
    budget: float,
    content: Mapping[str, Any],
) -> str:
    """A column for each method, and what one must know to read it."""
    rows = []
    within = [int((np.cumsum(c.calls) <= budget).sum()) for c in costs]
    rows.append(["crystals within the budget", *(f"{n:,}" for n in within)])
    rows.append(["force calls for a crystal", *(f"{c.calls.mean():.1f}" for c in costs)])
    rows.append(["core-seconds to make a crystal", *(f"{c.crystal_seconds:.2f}" for c in costs)])
    rows.append(["core-seconds for a force call", *(f"{c.call_seconds:.3f}" for c in costs)])
    rows.append(["share of making in the core-hours", *(f"{100 * _share_of_making(c):.0f} %" for c in costs)])
    for key, unit in (("per_1000_calls", "for 1,000 force calls"), ("per_core_hour", "for a core-hour")):
        for name, label in MEASURES.items():
            rows.append([f"{unit}: {label}", *(_cell(measured[c.name][name][key]) for c in costs)])
    timing = content["results"]["timing"]
    note = (
        f"Unique, novel crystals of each method, in the order in which they were proposed, within {budget:,.0f} force "
        "calls: as many as every method has spent. A force call is one crystal as proposed, one step of its "
        "relaxation, or one energy of the screening. Brackets: 95 % bootstrap intervals of "
        f"{RESAMPLES:,} resamples of the crystals, which leave uniqueness as it is and do not hold the errors of the "
        "judge or of the times. Core-seconds are "
        f"processor time of {timing['crystals']} crystals and their relaxations, {timing['threads']} "
        f"thread{'' if timing['threads'] == 1 else 's'}, {timing['processor']}. {judge_sentence(content['judge'])}"
    )
    return f"{markdown_table(['', *(c.name for c in costs)], rows)}\n{note}\n"


def _share_of_making(costs: Costs) -> float:
    hours = float(costs.core_hours.sum())
    return costs.crystal_seconds * len(costs.calls) / 3600 / hours if hours else 0.0


def _cell(value: tuple[float, float, float]) -> str:
    middle, low, high = value
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def picture(costs: Sequence[Costs], *, budget: float) -> Figure:
    """Near the hull, unique and novel, as judged: against force calls, and against core-hours."""
    figure, (left, right) = canvas(2, width=9.6, height=4.2)
    hours = min(float(c.core_hours.sum()) for c in costs)
    for i, c in enumerate(costs):
        index = c.resampled()
        worth, color = c.worth["near"], COLORS[i % len(COLORS)]
        for panel, cost, end in ((left, c.calls, budget), (right, c.core_hours, hours)):
            grid = np.linspace(0.0, max(end, 1e-9), 101)
            low, high = interval(found_within(cost[index], worth[index], grid))
            found = found_within(cost[None], worth[None], grid)[0]
            panel.plot(grid, found, color=color, linewidth=2, label=c.name, zorder=2 + len(costs) - i)
            panel.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)
            panel.set_xlim(0, max(end, 1e-9))
    for panel in (left, right):
        panel.set_ylim(bottom=0)
    left.set_xlabel("force calls")
    right.set_xlabel("core-hours, making included")
    left.set_ylabel("≤ 0.1 eV/atom as judged, unique, novel")
    left.legend(frameon=False, fontsize=8)
    return figure
