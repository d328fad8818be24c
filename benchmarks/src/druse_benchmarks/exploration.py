"""Explorations of chemical systems side by side: the hull of all that is known or was found, table and picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.console import Display
from druse_energetics.hull import ConvexHull
from druse_evaluation.summary import judge_sentence
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.findings import MEASURES, Finding, measure
from druse_benchmarks.record import judged_by, made_alike, markdown_table, write_record

ON_HULL = 0.005
"""eV/atom; relaxations of one structure by several methods end within this of each other, so that all of them count."""
GROUPS = {2: "binary", 3: "ternary", 4: "quaternary", 5: "quinary"}
ORDER = ("druse", "iterated-substitution", "ion-exchange", "pyxtal", "airss")


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """One method in one chemical system.

    Attributes:
        system: chemical system.
        method: name.
        findings: in the order in which they were proposed.
        ended: why the method stopped before the budget was spent; empty if it did not.
        on_hull: of each finding whether it is unique, novel and on the hull of everything.
    """

    system: str
    method: str
    findings: Sequence[Finding]
    ended: str
    on_hull: Sequence[bool]

    @property
    def group(self) -> str:
        """Name of the number of elements."""
        size = self.system.count("-") + 1
        return GROUPS.get(size, f"{size} elements")

    @property
    def calls(self) -> np.ndarray:
        """Force calls up to and including each finding."""
        return np.cumsum([finding.calls for finding in self.findings], dtype=float)


def combined_hull(hull: ConvexHull, findings: Sequence[Finding]) -> ConvexHull:
    """The hull of the known phases and of everything found that may be believed."""
    believed = [f for f in findings if f.believable]
    if not believed:
        return hull
    formulas = [f.formula or "" for f in believed]
    return hull.joined(ConvexHull(formulas, [f.formation_energy or 0.0 for f in believed]))


def explorations(contents: Sequence[Mapping[str, Any]], hull: ConvexHull) -> list[Exploration]:
    """The content of JSON files, each finding placed on the hull of everything that was found in its system.

    Args:
        contents: one for each method and system.
        hull: of the reference.
    """
    found = []
    for system in sorted({content["settings"]["system"] for content in contents}, key=lambda s: (s.count("-"), s)):
        here = [content for content in contents if content["settings"]["system"] == system]
        findings = {c["settings"]["method"]: [Finding(**f) for f in c["findings"]] for c in here}
        together = combined_hull(hull, [f for several in findings.values() for f in several])
        for content in here:
            method = content["settings"]["method"]
            found.append(
                Exploration(
                    system=system,
                    method=method,
                    findings=findings[method],
                    ended=content["results"]["ended"],
                    on_hull=[_on_hull(finding, together) for finding in findings[method]],
                )
            )
    return found


def _on_hull(finding: Finding, hull: ConvexHull) -> bool:
    if not finding.new or finding.formula is None or finding.formation_energy is None:
        return False
    return hull.energy_above_hull(finding.formula, finding.formation_energy) <= ON_HULL


def write_exploration(out: Path, name: str, *, hull: ConvexHull, like: Mapping[str, Any], display: Display) -> Path:
    """Write table, picture and section of the README from the JSON files of all methods and systems that are there.

    Args:
        out: folder of all results.
        name: of the benchmark.
        hull: of the reference.
        like: a content whose judge and budget count; files of others stay out.
        display: told which.
    """
    contents = []
    for file in sorted((out / name).glob("*/*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if made_alike(content, like, made_by=_made_by):
            contents.append(content)
        else:
            display.warn(f"{file} has another judge, budget or seed than this run and stays out of the table")
    found = explorations(contents, hull)
    return write_record(
        out,
        name,
        documents={},
        table=table(found, budget=like["settings"]["budget"], judge=like["judge"]),
        picture=picture(found, budget=like["settings"]["budget"]),
        caption="Unique, novel structures near the hull and on the combined hull against force calls",
    )


def _made_by(content: Mapping[str, Any]) -> list[Any]:
    return [*judged_by(content), *(content["settings"][key] for key in ("budget", "seed"))]


def methods_of(found: Sequence[Exploration]) -> list[str]:
    """Names of the methods, Druse first."""
    return [method for method in ORDER if any(e.method == method for e in found)]


def table(found: Sequence[Exploration], *, budget: int, judge: Mapping[str, Any]) -> str:
    """Sums over the systems of each size, then every system by itself, and what one must know to read it."""
    groups = list(dict.fromkeys(e.group for e in found))
    parts = []
    for group in groups:
        here = [e for e in found if e.group == group]
        names = list(dict.fromkeys(e.system for e in here))
        rows = []
        for method in methods_of(here):
            of = [e for e in here if e.method == method]
            every = [f for e in of for f in e.findings]
            rows.append(
                [
                    method,
                    f"{len(of)}",
                    f"{sum(f.calls for f in every):,}",
                    f"{len(every):,}",
                    f"{sum(f.unique for f in every):,}",
                    f"{sum(f.unique and f.novel for f in every):,}",
                    *(_amount(sum(measure(f, name) for f in every)) for name in MEASURES),
                    f"{sum(sum(e.on_hull) for e in of):,}",
                ]
            )
        header = ["", "systems", "force calls", "relaxed", "unique", "unique, novel", *MEASURES.values(), "on the hull"]
        parts.append(f"{group.capitalize()} ({', '.join(names)}):\n\n{markdown_table(header, rows)}")
    return "\n".join([*parts, _every_system(found), _notes(found, budget=budget, judge=judge)])


def _amount(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def _every_system(found: Sequence[Exploration]) -> str:
    """Near the hull / on the combined hull, a row for each system."""
    methods = methods_of(found)
    by = {(e.system, e.method): e for e in found}
    rows = []
    for system in dict.fromkeys(e.system for e in found):
        cells = [by.get((system, method)) for method in methods]
        rows.append([system, *("" if e is None else _near_and_on(e) for e in cells)])
    return f"Near the hull as judged / on the hull, by system:\n\n{markdown_table(['', *methods], rows)}"


def _near_and_on(exploration: Exploration) -> str:
    near = sum(measure(f, "near") for f in exploration.findings)
    return f"{near:.0f} / {sum(exploration.on_hull)}" + ("*" if exploration.ended else "")


def _notes(found: Sequence[Exploration], *, budget: int, judge: Mapping[str, Any]) -> str:
    notes = [
        f"{budget:,} force calls for each method in each system: one for every relaxed crystal as proposed and one for "
        "every step of its relaxation. The columns about the hull count unique, novel crystals. On the hull: at most "
        f"{1000 * ON_HULL:.0f} meV/atom above the hull of the reference and of what all methods found, as judged; a "
        "structure that several methods find counts for each. Nothing was computed with DFT.",
    ]
    ended = [e for e in found if e.ended]
    if ended:
        notes.append(f"* stopped before the budget was spent: {'; '.join(sorted({_why(e) for e in ended}))}.")
    return " ".join([*notes, judge_sentence(judge)]) + "\n"


def _why(exploration: Exploration) -> str:
    return f"{exploration.method} in {exploration.system} ({exploration.ended.partition(':')[0]})"


def picture(found: Sequence[Exploration], *, budget: int) -> Figure:
    """Against force calls for a system, summed over the systems of each size: near the hull above, on it below."""
    groups = list(dict.fromkeys(e.group for e in found))
    figure, panels = canvas(len(groups), 2, width=max(4.2 * len(groups), 5.0), height=6.4)
    grid = np.linspace(0, budget, 201)
    for column, group in enumerate(groups):
        upper, lower = panels[column], panels[len(groups) + column]
        here = [e for e in found if e.group == group]
        for method in methods_of(found):
            of = [e for e in here if e.method == method]
            if not of:
                continue
            color = COLORS[ORDER.index(method) % len(COLORS)]
            near = sum(_curve(e, [measure(f, "near") for f in e.findings], grid) for e in of)
            on = sum(_curve(e, e.on_hull, grid) for e in of)
            for panel, curve in ((upper, near), (lower, on)):
                order = 2 + len(ORDER) - ORDER.index(method)
                panel.step(grid, curve, where="post", color=color, linewidth=2, label=method, zorder=order)
        number = len({e.system for e in here})
        upper.set_title(f"{group}, {number} system{'' if number == 1 else 's'}", fontsize=10)
        lower.set_xlabel("force calls in a system")
        for panel in (upper, lower):
            panel.set_xlim(0, budget)
            panel.set_ylim(0, max(1, panel.get_ylim()[1]))
            panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("≤ 0.1 eV/atom, unique, novel")
    panels[len(groups)].set_ylabel("on the combined hull")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _curve(exploration: Exploration, values: Sequence[float] | Sequence[bool], grid: np.ndarray) -> np.ndarray:
    """Sum of the values of all findings that were paid for at each number of force calls."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float))])
    return total[np.searchsorted(exploration.calls, grid, side="right")]
