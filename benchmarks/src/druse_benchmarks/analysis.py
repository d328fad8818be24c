"""What do the crystals of a method look like? The paper's analysis plots, for several finished sets side by side.

After Zeni et al., Nature 639, 624 (2025), figure 2 and its supplement: displacement on relaxation, uniqueness and
novelty against the number generated, space groups, elements, sizes, density, distance to the hull.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from druse_baselines import Substitution
from druse_crystal.console import Display
from druse_crystal.convert import to_pymatgen
from druse_crystal.dataset import load_embedded
from druse_crystal.io import ReadResult
from druse_crystal.manifest import Manifest, file_hash
from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluate.judging import judge
from druse_evaluation.table import Assessment
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pymatgen.core import Element

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, write_record

NAME = "analysis"
N_GROUPS = 12
N_ELEMENTS = 30
JUDGED_WITH = ("judge", "judges", "weights", "reference", "reference_files", "n_known_structures", "matcher")
COUNTS = (10, 100, 250, 500, 1000, 2500, 5000, 10_000)

Sets = Mapping[str, Assessment]


def analysis(tables: Mapping[str, Path], *, out: Path, display: Display, manifest: Manifest) -> Path:
    """Compare finished sets of crystals, and write the record.

    Args:
        tables: for each name, which heads a column, the ``crystals.parquet`` of an evaluation, or its folder.
        out: folder of all results.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: if there is no table, or one cannot be read.
    """
    if not tables:
        raise ValueError("there is nothing to analyse: give folders of druse evaluate, as NAME=FOLDER")
    sets = {}
    for name, path in tables.items():
        display.say(f"{name}: {path}")
        file = path / "crystals.parquet" if path.is_dir() else path
        with manifest.stage("reading"):
            sets[name] = Assessment.read(file)
            manifest.inputs[name] = file_hash(file)
    manifest.settings["sets"] = {
        name: {key: found.metadata.get(key) for key in JUDGED_WITH} for name, found in sets.items()
    }
    with manifest.stage("facts"):
        manifest.results |= {name: facts(found) for name, found in sets.items()}
    with manifest.stage("picture"):
        drawn = picture(sets)
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={NAME: document},
        table=_table(manifest.results, sets),
        picture=drawn,
        caption="Distributions of relaxed crystals: displacement, hull, repeats, symmetry, size, density, elements",
    )


def small_sets(folder: Path, display: Display) -> dict[str, Path]:
    """Known crystals, and some with an element exchanged, evaluated in a hurry: sets to try this benchmark on.

    Args:
        folder: made; an evaluation in it is taken as it is.
        display: shows progress.
    """
    known = load_embedded()
    small = [known.crystals[int(i)] for i in np.flatnonzero(known.num_atoms <= 2)[:100]]
    config = EvaluationConfig(relaxation=RelaxationConfig(max_steps=10))
    for name, crystals in {"known": small[:6], "substituted": list(Substitution(small)(6))}.items():
        candidates = [ReadResult(source=f"{name}-{i}", crystal=crystal) for i, crystal in enumerate(crystals)]
        judge(candidates, out=folder / name, config=config, display=display, manifest=Manifest())
    return {name: folder / name for name in ("known", "substituted")}


def facts(found: Assessment) -> dict[str, Any]:
    """Numbers behind the pictures.

    Returns:
        quantiles of displacement (Å), energy above hull (eV/atom) and density (g/cm³); shares of all crystals that are
        unique and new after so many; the commonest space groups; crystals by number of atoms and of elements, and by
        element; force calls that their relaxations took.
    """
    return {
        "crystals": len(found),
        "force_calls": calls(found),
        "rmsd": _quantiles(found.values("rmsd")),
        "energy_above_hull": _quantiles(found.trusted_distances()),
        "density": _quantiles(densities(found)),
        "unique_after": _after(found.flags("unique")),
        "unique_and_novel_after": _after(found.flags("unique") & found.flags("novel")),
        "space_groups": dict(Counter(groups(found)).most_common()),
        "num_atoms": dict(sorted(Counter(sizes(found, "num_atoms")).items())),
        "num_elements": dict(sorted(Counter(sizes(found, "num_elements")).items())),
        "elements": dict(elements(found).most_common()),
    }


def calls(found: Assessment) -> int:
    """Force calls of all relaxations, as ``druse_energetics.relaxation.force_calls`` counts them."""
    steps = found.values("n_steps")
    refused = np.isnan(steps) | ((steps == 0) & np.isnan(found.values("initial_energy")))
    return int((steps[~refused] + 1).sum())


def densities(found: Assessment) -> Float64[np.ndarray, " m"]:
    """Mass densities in g/cm³ of the relaxed crystals."""
    crystals = [c for i in range(len(found)) if (c := found.relaxed(i)) is not None]
    return np.array([float(to_pymatgen(crystal).density) for crystal in crystals])


def groups(found: Assessment) -> list[int]:
    """Space group numbers of the relaxed crystals."""
    return sizes(found, "space_group_number")


def sizes(found: Assessment, column: str) -> list[int]:
    """A column of whole numbers, without the crystals that have none."""
    return [int(value) for value in found.values(column) if np.isfinite(value)]


def elements(found: Assessment) -> Counter[str]:
    """In how many of the crystals each element occurs."""
    systems = [system for system in found.strings("chemical_system") if system]
    return Counter(symbol for system in systems for symbol in system.split("-"))


def _after(flags: np.ndarray) -> dict[str, float]:
    """Share of the first n crystals, for some n."""
    return {str(n): float(flags[:n].mean()) for n in sorted({*(n for n in COUNTS if n < len(flags)), len(flags)}) if n}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    return {str(q): float(np.quantile(known, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}


def _table(results: Mapping[str, Any], sets: Sets) -> str:
    def middle(row: Mapping[str, Any], key: str, digits: int) -> str:
        q = row[key]
        return f"{q['0.5']:.{digits}f} [{q['0.25']:.{digits}f}, {q['0.75']:.{digits}f}]" if q else "–"

    def commonest(counts: Mapping[Any, int], row: Mapping[str, Any], n: int) -> str:
        return ", ".join(f"{key} {_percent(count, row, 0)}" for key, count in Counter(counts).most_common(n)) or "–"

    def last(row: Mapping[str, Any], key: str) -> str:
        return f"{100 * list(row[key].values())[-1]:.1f} %" if row[key] else "–"

    lines: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("crystals", lambda row: f"{row['crystals']:,}"),
        ("displacement on relaxation, Å: median, quartiles", lambda row: middle(row, "rmsd", 3)),
        ("energy above hull as judged, eV/atom", lambda row: middle(row, "energy_above_hull", 3)),
        ("density, g/cm³", lambda row: middle(row, "density", 2)),
        ("unique, of all", lambda row: last(row, "unique_after")),
        ("unique and novel, of all", lambda row: last(row, "unique_and_novel_after")),
        ("P1", lambda row: _percent(row["space_groups"].get(1, 0), row, 1)),
        ("commonest space groups", lambda row: commonest(row["space_groups"], row, 3)),
        ("commonest numbers of atoms", lambda row: commonest(row["num_atoms"], row, 3)),
        (
            "binary, ternary, quaternary",
            lambda row: ", ".join(_percent(row["num_elements"].get(n, 0), row, 0) for n in (2, 3, 4)),
        ),
        ("commonest elements", lambda row: commonest(row["elements"], row, 4)),
    ]
    body = [[title, *(words(results[name]) for name in sets)] for title, words in lines]
    return markdown_table(["", *sets], body)


def _percent(count: int, row: Mapping[str, Any], digits: int) -> str:
    return f"{100 * count / row['crystals']:.{digits}f} %" if row["crystals"] else "–"


def picture(sets: Sets) -> Figure:
    """One panel for each question, one colour for each set."""
    figure, panels = canvas(2, 5, width=11.0, height=17.0)
    for panel, (draw, x, y) in zip(
        panels,
        (
            (_displacements, "displacement on relaxation, Å", "share of the relaxed, %"),
            (_hull, "energy above hull as judged, eV/atom", "share of all, %"),
            (_repeats("unique"), "crystals asked for", "unique of these, %"),
            (_repeats("unique", "novel"), "crystals asked for", "unique and novel of these, %"),
            (_space_groups, "", "share of the relaxed, %"),
            (_crystal_systems, "", "share of the relaxed, %"),
            (_histogram("num_atoms"), "atoms in the cell", "share of all, %"),
            (_histogram("num_elements"), "elements", "share of all, %"),
            (_density, "density, g/cm³", "share of the relaxed, %"),
            (_elements, "", "share of the crystals that hold it, %"),
        ),
        strict=True,
    ):
        draw(panel, sets)
        panel.set_xlabel(x)
        panel.set_ylabel(y)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _cumulative(panel: Axes, sets: Sets, values: Callable[[Assessment], np.ndarray], total: bool) -> None:
    for i, (name, found) in enumerate(sets.items()):
        known = np.sort(values(found)[np.isfinite(values(found))])
        share = 100 * np.arange(1, len(known) + 1) / max(1, len(found) if total else len(known))
        panel.step(known, share, where="post", color=_color(i), linewidth=2, label=name)
    panel.set_ylim(0, 100)


def _displacements(panel: Axes, sets: Sets) -> None:
    _cumulative(panel, sets, lambda found: found.values("rmsd"), total=False)
    panel.set_xscale("symlog", linthresh=0.01)
    panel.set_xlim(0, 2)
    ticks = (0, 0.01, 0.03, 0.1, 0.3, 1)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _hull(panel: Axes, sets: Sets) -> None:
    _cumulative(panel, sets, lambda found: found.trusted_distances(), total=True)
    panel.set_xlim(-0.2, 0.8)
    panel.axvline(0.1, color="#94a3b8", linestyle=":", linewidth=1.2)


def _repeats(*flags: str) -> Callable[[Axes, Sets], None]:
    def draw(panel: Axes, sets: Sets) -> None:
        for i, (name, found) in enumerate(sets.items()):
            good = np.all([found.flags(flag) for flag in flags], axis=0)
            number = np.arange(1, len(found) + 1)
            panel.plot(number, 100 * np.cumsum(good) / number, color=_color(i), linewidth=2, label=name)
        panel.set_ylim(0, 101)

    return draw


def _bars(panel: Axes, sets: Sets, labels: Sequence[Any], counts: Callable[[Assessment], Counter], whole: bool) -> None:
    width, places = 0.8 / max(1, len(sets)), np.arange(len(labels))
    for i, (name, found) in enumerate(sets.items()):
        number = counts(found)
        total = len(found) if whole else sum(number.values())
        heights = [100 * number[label] / max(1, total) for label in labels]
        panel.bar(places + (i - (len(sets) - 1) / 2) * width, heights, width, color=_color(i), label=name)
    panel.grid(axis="x", visible=False)


def _space_groups(panel: Axes, sets: Sets) -> None:
    symbols = {
        int(number): symbol
        for found in sets.values()
        for number, symbol in zip(found.values("space_group_number"), found.strings("space_group_symbol"), strict=True)
        if np.isfinite(number) and symbol
    }
    shares: dict[int, float] = defaultdict(float)
    for found in sets.values():
        for number, count in Counter(groups(found)).items():
            shares[number] += count / max(1, len(found))
    chosen = sorted(_largest(shares, N_GROUPS))
    _bars(panel, sets, chosen, lambda found: Counter(groups(found)), whole=False)
    panel.set_xticks(range(len(chosen)), [symbols[number] for number in chosen], rotation=50, ha="right", fontsize=8)


def _crystal_systems(panel: Axes, sets: Sets) -> None:
    names = ["triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic"]
    _bars(panel, sets, names, lambda found: Counter(x for x in found.strings("crystal_system") if x), whole=False)
    panel.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)


def _histogram(column: str) -> Callable[[Axes, Sets], None]:
    def draw(panel: Axes, sets: Sets) -> None:
        largest = max((max(sizes(found, column), default=1) for found in sets.values()), default=1)
        _bars(panel, sets, range(1, largest + 1), lambda found: Counter(sizes(found, column)), whole=True)
        panel.set_xticks(range(largest), [str(n) for n in range(1, largest + 1)], fontsize=8)

    return draw


def _density(panel: Axes, sets: Sets) -> None:
    _cumulative(panel, sets, densities, total=False)
    panel.set_xlim(left=0)


def _largest[K](shares: Mapping[K, float], n: int) -> list[K]:
    return sorted(shares, key=lambda name: -shares[name])[:n]


def _elements(panel: Axes, sets: Sets) -> None:
    shares: dict[str, float] = defaultdict(float)
    for found in sets.values():
        for symbol, count in elements(found).items():
            shares[symbol] += count / max(1, len(found))
    chosen = sorted(_largest(shares, N_ELEMENTS), key=lambda symbol: Element(symbol).Z)
    for i, (name, found) in enumerate(sets.items()):
        counts, total = elements(found), max(1, len(found))
        panel.plot(chosen, [100 * counts[s] / total for s in chosen], "o", markersize=5, color=_color(i), label=name)
    panel.set_ylim(bottom=0)
    panel.tick_params(axis="x", labelsize=7)
