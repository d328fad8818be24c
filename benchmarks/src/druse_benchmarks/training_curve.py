"""What does an hour of training buy?"""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from druse_crystal.console import Display
from druse_crystal.dataset import load_embedded
from druse_crystal.manifest import Manifest, file_hash
from druse_scores import PairNetworkConfig
from druse_train.config import FitConfig, OptimizerConfig
from matplotlib.figure import Figure

from druse_benchmarks.drawing import COLORS, MARKED, canvas
from druse_benchmarks.record import markdown_table, write_record

LOG = "log.csv"
LOSSES = {
    "val_total": "total",
    "val_lattice": "lattice",
    "val_frac_coords": "coordinates",
    "val_species": "species",
}
MARKS = (1.0, 2.0, 4.0, 6.0)
"""Hours of training in the table."""

type Row = dict[str, float]


def read_log(run: Path) -> list[Row]:
    """Validations of a run, by rising step.

    A run that was killed repeats the steps since its last checkpoint: of those, the later validation counts. A last
    line that is being written is left out.

    Raises:
        ValueError: if there is no log, or no validation in it.
    """
    path = run / LOG if run.is_dir() else run
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: give the folder of a run of `druse-train fit`") from error
    needed = {"step", "seen", "hours", *LOSSES}
    rows: list[Row] = []
    for line in lines:
        try:
            row = {name: float(line[name]) for name in needed}
        except (KeyError, TypeError, ValueError):
            continue
        while rows and rows[-1]["step"] >= row["step"]:
            rows.pop()
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no validation with the columns {', '.join(sorted(needed))}")
    return rows


def read_logs(runs: Sequence[Path]) -> list[Row]:
    """Validations of runs that each started from the weights of the one before: steps, crystals and hours add up.

    What a run did after its last validation is not counted, and where the learning rate rises again, losses do too.

    Raises:
        ValueError: if there is no run, or one has no log.
    """
    if not runs:
        raise ValueError("no run was given")
    rows: list[Row] = []
    for run in runs:
        before = {name: rows[-1][name] if rows else 0.0 for name in ("step", "seen", "hours")}
        rows += [row | {name: row[name] + start for name, start in before.items()} for row in read_log(run)]
    return rows


def at_hours(rows: Sequence[Row], marks: Sequence[float] = MARKS) -> list[tuple[str, Row]]:
    """The last validation at or before each mark that the run has reached, the best one, and the last of all."""
    found = []
    for mark in marks:
        before = [row for row in rows if row["hours"] <= mark]
        if before and rows[-1]["hours"] >= mark:
            found.append((f"{mark:g} h", before[-1]))
    best = min(rows, key=lambda row: row["val_total"])
    return [*found, ("best", best), ("last", rows[-1])]


def training_curve(runs: Sequence[Path], *, out: Path, manifest: Manifest) -> Path:
    """Write table and picture of the validation losses of a run, or of several that follow each other.

    Args:
        runs: folders of runs of `druse-train fit`, or their logs.
        out: folder of all results.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: if there is no log.
    """
    rows = read_logs(runs)
    for i, run in enumerate(runs):
        folder = run if run.is_dir() else run.parent
        for name in (LOG if run.is_dir() else run.name, "recipe.yaml"):
            if (folder / name).is_file():
                manifest.inputs[f"{i + 1}/{name}"] = file_hash(folder / name)
    manifest.settings["marks_hours"] = list(MARKS)
    manifest.results |= {"validations": rows, "table": dict(at_hours(rows))}
    return write_record(
        out,
        "training-curve",
        documents={"training-curve": manifest.as_dict()},
        table=table(rows),
        picture=picture(rows),
        caption="Validation losses against hours of training and against crystals seen",
    )


def table(rows: Sequence[Row]) -> str:
    """The record as Markdown."""
    lines = [
        [
            label,
            f"{row['hours']:.2f}",
            f"{row['step']:,.0f}",
            f"{row['seen']:,.0f}",
            *(f"{row[name]:.4f}" for name in LOSSES),
        ]
        for label, row in at_hours(rows)
    ]
    return (
        "Validation losses of the averaged weights, in hours of training (validation not counted): lattice and species "
        "a crystal, coordinates an atom, the total with the weights of the recipe.\n\n"
        + markdown_table(["", "hours", "steps", "crystals seen", *LOSSES.values()], lines)
    )


def picture(rows: Sequence[Row]) -> Figure:
    """Every loss against hours (above) and crystals seen (below)."""
    figure, panels = canvas(len(LOSSES), 2, width=12.0, height=5.6)
    best = min(rows, key=lambda row: row["val_total"])
    for i, (axis, label, scale) in enumerate((("hours", "hours of training", 1.0), ("seen", "million crystals", 1e-6))):
        for j, (name, title) in enumerate(LOSSES.items()):
            panel = panels[i * len(LOSSES) + j]
            panel.plot([scale * row[axis] for row in rows], [row[name] for row in rows], color=COLORS[j], linewidth=1.8)
            panel.plot([scale * best[axis]], [best[name]], marker="o", color=MARKED)
            panel.set_xlabel(label)
            if i == 0:
                panel.set_title(title, fontsize=10)
    return figure


def small_run(folder: Path, display: Display) -> Path:
    """Train a tiny network for a few steps: a log to try this benchmark on."""
    from druse_train.fitting import fit

    config = FitConfig(
        network=PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2),
        optimizer=OptimizerConfig(warmup_steps=5),
        max_steps=24,
        validate_every_steps=6,
        mixed_precision=False,
    )
    config = replace(config, data=replace(config.data, max_atoms=4, max_batch=32))
    fit(config, load_embedded(), folder, resume=False, card={}, show=lambda stage, values: None)
    display.say(f"trained a tiny network for {config.max_steps} steps")
    return folder
