"""How good are crystals that nobody asked anything of? Druse beside classical methods and known materials."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.console import Display
from druse_crystal.files import writable_folder, write_text
from druse_crystal.manifest import Manifest
from druse_energetics.reference import Reference, load_reference
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import check_relaxation, judge, pad
from druse_evaluation.estimate import Z_95, Average, Rate
from druse_evaluation.metrics import METRICS, Measured
from druse_evaluation.summary import as_markdown, judge_sentence
from druse_evaluation.table import Assessment
from matplotlib.figure import Figure

from druse_benchmarks.drawing import COLORS, MARKED, canvas
from druse_benchmarks.record import machine_load, made_alike, plain, write_record
from druse_benchmarks.sources import CLASSICAL, Source

NAME = "unconditional"
FIRST, LAST = ("druse",), (*CLASSICAL, "known")
HULL_RANGE = (-0.2, 0.6)  # eV/atom


def unconditional(
    sources: Sequence[Source],
    *,
    num: int,
    seed: int,
    evaluation: EvaluationConfig,
    out: Path,
    work: Path,
    display: Display,
) -> Path:
    """Draw ``num`` crystals from each source, judge all of them alike, and write one table.

    The folder of the record has one JSON file for each method. The table shows all methods that are there, also those
    of earlier calls, as long as they were judged in the same way.

    Args:
        sources: where the crystals come from.
        num: crystals asked for, of each source; the denominator of every rate.
        seed: of the sources.
        evaluation: reference and relaxation.
        out: folder of all results.
        work: a folder in which finished crystals and relaxations are kept; the same call continues there.
        display: shows progress.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for settings that make no sense, or a folder that cannot be written to.
    """
    if num < 1:
        raise ValueError(f"{num} crystals were asked for: ask for at least 1")
    check_relaxation(evaluation.relaxation)
    folder = writable_folder(out / NAME)
    reference = load_reference(evaluation.reference, potential=evaluation.relaxation.potential)
    for source in sources:
        display.say(f"{source.name}: {num} crystals")
        content = plain(
            _measure(
                source,
                num=num,
                seed=seed,
                evaluation=evaluation,
                reference=reference,
                work=writable_folder(work / source.name),
                display=display,
            )
        )
        write_text(folder / f"{source.name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        merge(out, like=source.name, display=display)
    return folder


def _measure(
    source: Source,
    *,
    num: int,
    seed: int,
    evaluation: EvaluationConfig,
    reference: Reference,
    work: Path,
    display: Display,
) -> dict[str, Any]:
    """One method: its protocol and what came out."""
    manifest = Manifest(seed=seed)
    resumed = any(work.glob("*.jsonl"))
    candidates = pad(source(num, seed=seed, folder=work, display=display, manifest=manifest), num)
    assessment = judge(
        candidates,
        out=work,
        config=evaluation,
        display=display,
        manifest=manifest,
        reference=reference,
        title=f"{num} crystals: {source.name}",
    )
    manifest.settings |= {"method": source.name, "num": num}
    return manifest.as_dict() | {
        "machine": manifest.as_dict()["machine"] | machine_load(),
        "times_are_of_the_last_part_only": resumed,
        "judge": dict(assessment.metadata),
        "energy_above_hull": _hull_distances(assessment),
    }


def _hull_distances(assessment: Assessment) -> list[float]:
    """Judged hull distances in eV/atom, rising; crystals without one are left out."""
    above = assessment.values("energy_above_hull")
    return np.sort(above[np.isfinite(above)]).round(4).tolist()


def merge(out: Path, *, like: str, display: Display) -> None:
    """Write table, picture and section of the README from the JSON files that are there.

    Args:
        out: folder of all results.
        like: method whose judge counts; files of another judge stay out.
        display: told which.
    """
    folder = out / NAME
    contents = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    for name in list(contents):
        if not made_alike(contents[name], contents[like]):
            display.warn(
                f"{folder / (name + '.json')} was judged in another way than {like} and stays out of the table"
            )
            del contents[name]
    contents = {name: contents[name] for name in sorted(contents, key=_rank)}
    table = as_markdown({name: measured(content["results"]) for name, content in contents.items()})
    notes = [judge_sentence(contents[like]["judge"]), *_notes(contents)]
    write_record(
        out,
        NAME,
        documents={},
        table=f"{table}\nRates are shares of all crystals asked for, with 95 % intervals. {' '.join(notes)}\n",
        picture=picture(contents),
        caption="Share of all crystals asked for that lie at most so far above the hull",
    )


def _rank(name: str) -> tuple[int, str]:
    """Druse first, known materials last."""
    if name in LAST:
        return len(FIRST) + 1 + LAST.index(name), name
    return (FIRST.index(name) if name in FIRST else len(FIRST)), name


def _notes(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    if "known" in contents:
        notes.append("The known crystals are part of the reference, so that none of them counts as novel.")
        facts = contents["known"]["settings"]["known"]
        if facts["with_dft_hull_distance"]:
            rate = Rate(facts["dft_metastable"], facts["with_dft_hull_distance"])
            notes.append(f"By their DFT labels {rate} of them lie at most 0.1 eV/atom above the hull.")
    return notes


def measured(results: Mapping[str, Any]) -> list[Measured]:
    """The metrics of a JSON file, as they were measured."""
    return [Measured(metric, _value(results[metric.name])) for metric in METRICS if metric.name in results]


def _value(stored: Mapping[str, Any]) -> Rate | Average:
    if "count" in stored:
        return Rate(stored["count"], stored["total"])
    average, middle = (math.nan if stored[key] is None else stored[key] for key in ("mean", "median"))
    low, high = stored["interval_95"]
    error = math.nan if low is None else (high - low) / (2 * Z_95)
    return Average(average, middle, error, stored["n"], stored["unit"])


def picture(contents: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Cumulative distribution of the hull distance of every method."""
    figure, (panel,) = canvas(width=7.0, height=4.4)
    for bound in (0.0, 0.1):
        panel.axvline(bound, color=MARKED, linestyle=":", linewidth=1.4)
    for i, (name, content) in enumerate(contents.items()):
        above, total = content["energy_above_hull"], content["settings"]["num"]
        share = 100 * np.arange(len(above) + 1) / total
        x = [HULL_RANGE[0] - 1, *above, HULL_RANGE[1] + 1]
        line = "--" if i >= len(COLORS) else "-"  # a color that is there already
        color = COLORS[i % len(COLORS)]
        panel.step(x, [*share, share[-1]], where="post", color=color, linestyle=line, linewidth=2, label=name)
    panel.set_xlim(*HULL_RANGE)
    panel.set_ylim(0, 101)
    panel.set_xlabel("energy above hull as judged, eV/atom")
    panel.set_ylabel("share of all crystals asked for, %")
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
