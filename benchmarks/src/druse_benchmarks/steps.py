"""How good are the crystals for how many evaluations of the network?"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal import Crystal
from druse_crystal.console import Display
from druse_crystal.files import writable_folder
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_crystal.manifest import Manifest, file_hash
from druse_energetics.reference import Reference, load_reference
from druse_energetics.weights import weights_digests
from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluate.judging import check_relaxation, relax_all, relaxation_settings
from druse_evaluate.store import RelaxationStore
from druse_evaluation.assessment import assess
from druse_evaluation.metrics import METRICS, measure
from druse_evaluation.table import Assessment
from druse_generate.checking import check
from druse_generate.config import SAMPLERS, GenerateConfig, SamplerConfig
from druse_generate.generating import generate
from druse_scores import Checkpoint, load_checkpoint
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, plain, write_record

DEFAULT = (
    "fast:10+0,fast:25+0,fast:25+1,fast:25+3,fast:50+3,fast:100+3,fast:250+3,fast:500+3,"
    "published:10+0,published:25+1,published:50+1,published:100+1,published:250+1,published:1000+1"
)
MIXED = "/bfloat16"
ALSO_MIXED = f",fast:100+3{MIXED},published:250+1{MIXED}"  # where the processor has such products
QUARTILES = (0.25, 0.5, 0.75)


def parse_samplers(text: str) -> dict[str, SamplerConfig]:
    """Samplers from words such as ``fast:100+1@0.25``: grid, predictor steps, corrector steps in each, temperature.

    Correctors and temperature (of coordinates and lattice) may be left out; the published sampler has no temperature.
    A word that ends with ``/bfloat16`` names a sampler whose network multiplies in mixed precision: ``SamplerConfig``
    knows nothing of it, the name does.

    Raises:
        ValueError: names the word that makes no sense.
    """
    samplers = {}
    for word in text.split(","):
        word = word.strip()
        grid, _, numbers = word.removesuffix(MIXED).partition(":")
        numbers, _, temperature = numbers.partition("@")
        steps, _, correctors = numbers.partition("+")
        try:
            sampler = SAMPLERS["published"] if grid == "published" else SamplerConfig(grid=grid)
            sampler = replace(sampler, steps=int(steps), corrector_steps=int(correctors or 0))
            if temperature:
                sampler = replace(sampler, temperature=float(temperature), lattice_temperature=float(temperature))
        except ValueError as error:
            raise ValueError(f"{word!r} is no sampler such as fast:100+1@0.25 ({error})") from error
        name = f"{grid}:{sampler.steps}+{sampler.corrector_steps}@{sampler.temperature:g}"
        samplers[name + MIXED if word.endswith(MIXED) else name] = sampler
    return samplers


def steps(
    samplers: Mapping[str, SamplerConfig],
    *,
    generation: GenerateConfig,
    model: Path,
    evaluation: EvaluationConfig,
    relax: bool,
    out: Path,
    work: Path,
    display: Display,
    manifest: Manifest,
) -> Path:
    """Draw the same crystals with each sampler and compare them as drawn: no relaxation, one energy each.

    Args:
        samplers: by name.
        generation: how many, from which seed; its sampler does not count.
        model: checkpoint folder.
        evaluation: reference, and the relaxation if there is one.
        relax: also relax the crystals and judge them in full.
        out: folder of all results.
        work: keeps what is finished; the same call continues there.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a broken checkpoint, settings that make no sense, or a folder that cannot be written to.
    """
    check_relaxation(evaluation.relaxation)
    work = writable_folder(work)
    checkpoint = load_checkpoint(model)
    reference = load_reference(evaluation.reference, potential=evaluation.relaxation.potential)
    single = replace(evaluation.relaxation, max_steps=0)
    drawn = {name: value for name, value in asdict(generation).items() if name != "sampler"}
    drawn["model"] = file_hash(model / "weights.safetensors")
    manifest.seed = generation.seed
    manifest.inputs |= {"model": drawn["model"], **reference.files}
    manifest.inputs |= {f"weights of {name}": sha for name, sha in weights_digests([single.potential]).items()}
    manifest.settings |= {"generate": drawn, "relax": relax, **evaluation.as_dict()}
    for name, sampler in samplers.items():  # refuses what cannot be drawn before hours of drawing, not after them
        check(checkpoint, replace(generation, sampler=sampler, mixed_precision=name.endswith(MIXED)))
    with manifest.stage("generation"):
        draws = _draw_all(samplers, checkpoint, generation, Journal(work / "draws.jsonl", "draws", drawn), display)
    rows: list[dict[str, Any]] = []
    for name, sampler in samplers.items():
        crystals, seconds = draws[name]["crystals"], draws[name]["seconds"]
        with manifest.stage("single points"):
            assessment = _assess(crystals, single, reference, work / "single-points.jsonl", display)
        row = {
            "sampler": name,
            **asdict(sampler),
            "precision": "bfloat16" if name.endswith(MIXED) else "float32",
            "evaluations": sampler.evaluations,
            "seconds": seconds,
            "seconds_per_crystal": seconds / len(crystals),
            "machine": draws[name]["machine"],
            "unrelaxed": _metrics(assessment),
            "unrelaxed_energy_above_hull": quartiles(assessment.values("energy_above_hull")),
        }
        if relax:
            with manifest.stage("relaxation"):
                relaxed = _assess(crystals, evaluation.relaxation, reference, work / "relaxations.jsonl", display)
            row["relaxed"] = _metrics(relaxed)
        rows.append(row)
    rows = _with_others(rows, out, manifest, display)
    manifest.results["rows"] = rows
    return write_record(
        out,
        "steps",
        documents={"steps": manifest.as_dict()},
        table=table(rows, num=generation.num, potential=single.potential),
        picture=picture(rows),
        caption="Energy above the hull of crystals as drawn against network evaluations",
    )


def _with_others(
    rows: Sequence[Mapping[str, Any]], out: Path, manifest: Manifest, display: Display
) -> list[dict[str, Any]]:
    """Rows of now and, of a record that is there already with the same settings and inputs, those of other samplers."""
    path = out / "steps" / "steps.json"
    if not path.is_file():
        return [*map(dict, rows)]
    there = json.loads(path.read_text(encoding="utf-8"))
    same = all(there["settings"].get(name) == value for name, value in plain(manifest.settings).items())
    if not same or any(there["inputs"].get(name, sha) != sha for name, sha in manifest.inputs.items()):
        display.say(f"{path} was made with other settings, weights or reference: its samplers stay out of the new one")
        return [*map(dict, rows)]
    now = {row["sampler"] for row in rows}
    everything = [*(row for row in there["results"]["rows"] if row["sampler"] not in now), *map(dict, rows)]
    return sorted(everything, key=lambda row: (row["grid"] == "published", row["evaluations"], row["sampler"]))


def quartiles(energy_above_hull: np.ndarray) -> list[float | None]:
    """Quartiles over all crystals, one without an energy counting as infinitely far; None for infinity.

    Args:
        energy_above_hull: eV/atom, NaN where there is none.
    """
    far = np.where(np.isfinite(energy_above_hull), energy_above_hull, np.inf)
    values = np.quantile(far, QUARTILES, method="inverted_cdf")
    return [float(x) if np.isfinite(x) else None for x in values]


def _draw_all(
    samplers: Mapping[str, SamplerConfig],
    checkpoint: Checkpoint,
    generation: GenerateConfig,
    journal: Journal,
    display: Display,
) -> dict[str, dict[str, Any]]:
    """Crystals and wall time of every sampler; those in the journal are not drawn again."""
    found = {line["sampler"]: line for line in journal.lines}
    if set(samplers) - set(found):  # the first call of the network is slower than all others
        list(generate(check(checkpoint, replace(generation, sampler=SamplerConfig(steps=2))), [0]))
    for name, sampler in samplers.items():
        if name in found:
            continue

        def tell(done: float, name: str = name) -> None:
            display.update(name, done, generation.num)

        machine = machine_load()
        start = time.perf_counter()
        asked = replace(generation, sampler=sampler, mixed_precision=name.endswith(MIXED))
        wishes = check(checkpoint, asked)
        draws = [draw for batch in generate(wishes, range(generation.num), on_progress=tell) for draw in batch]
        seconds = time.perf_counter() - start
        crystals = [draw.crystal for draw in sorted(draws, key=lambda draw: draw.index)]
        line = {"sampler": name, "seconds": seconds, "machine": machine}
        journal.keep(line | {"crystals": [crystal_as_json(crystal) for crystal in crystals]})
        found[name] = journal.lines[-1]
    return {
        name: line | {"crystals": [crystal_from_json(crystal) for crystal in line["crystals"]]}
        for name, line in found.items()
    }


def _assess(
    crystals: Sequence[Crystal | None],
    relaxation: RelaxationConfig,
    reference: Reference,
    path: Path,
    display: Display,
) -> Assessment:
    store = RelaxationStore(path, relaxation_settings(relaxation))
    relaxations = relax_all(crystals, config=relaxation, store=store, display=display, reference=reference)
    return assess(crystals, reference=reference, relaxations=relaxations, judge=relaxation.potential)


def _metrics(assessment: Assessment) -> dict[str, Any]:
    return {m.metric.name: m.value.as_dict() for m in measure(assessment)}


def table(rows: Sequence[Mapping[str, Any]], *, num: int, potential: str) -> str:
    """The record as Markdown."""
    header = ["grid", "steps", "correctors", "temperature", "precision", "evaluations", "s / crystal"]
    header += ["structure valid", "both valid", "unique", "quartile", "median", "quartile"]
    shown = [m for m in METRICS if m.name in ("match", "sun") or m.name.startswith("sun_calibrated")]
    shown = [m for m in shown if any(m.name in row.get("relaxed", {}) for row in rows)]
    header += [metric.label for metric in shown]
    lines = []
    for row in rows:
        line = [f"{row[key]}" for key in _NAMED]
        line.append(f"{row['seconds_per_crystal']:.3f}")
        line += [_percent(row["unrelaxed"], name) for name in ("structure_validity", "validity", "uniqueness")]
        line += ["∞" if x is None else f"{x:.3f}" for x in row["unrelaxed_energy_above_hull"]]
        line += [_percent(row["relaxed"], metric.name) for metric in shown]
        lines.append(line)
    machine = rows[0]["machine"]
    return (
        f"{num} crystals of the same seed from each sampler, on {machine['processor']} with {machine['threads']} "
        f"thread{'' if machine['threads'] == 1 else 's'}. Quartiles and median: energy above hull in eV/atom of the "
        f"crystals as drawn, without relaxation, by {potential}; a crystal without an energy counts as infinitely "
        "far.\n\n" + markdown_table(header, lines)
    )


_NAMED = ("grid", "steps", "corrector_steps", "temperature", "precision", "evaluations")


def _percent(metrics: Mapping[str, Any], name: str) -> str:
    return f"{100 * metrics[name]['value']:.1f} %" if name in metrics else ""


def _kind(row: Mapping[str, Any]) -> tuple[str, float, str]:
    return row["grid"], row["temperature"], row["precision"]


def picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Energies as drawn against evaluations, and the rate of stable, unique, novel crystals where they were relaxed.

    A line for each grid, temperature and precision.
    """
    judged = all("relaxed" in row for row in rows)
    figure, panels = canvas(2 if judged else 1, width=10.0 if judged else 7.0, height=4.2)
    kinds = sorted({_kind(row) for row in rows})
    for i, kind in enumerate(kinds):
        part = sorted((row for row in rows if _kind(row) == kind), key=lambda row: row["evaluations"])
        x = [row["evaluations"] * (1 + 0.02 * i) for row in part]  # side by side where they would hide each other
        grid, temperature, precision = kind
        label = f"{grid}, T = {temperature:g}{'' if precision == 'float32' else f', {precision}'}"
        low, middle, high = np.array([row["unrelaxed_energy_above_hull"] for row in part], dtype=float).T
        energy = np.nan_to_num([middle - low, high - middle])
        _line(panels[0], x, middle, energy, color=COLORS[i % len(COLORS)], label=label)
        if judged:
            rates = np.array([[row["relaxed"]["sun"]["value"], *row["relaxed"]["sun"]["interval_95"]] for row in part])
            value, least, most = 100 * rates.T
            _line(panels[1], x, value, [value - least, most - value], color=COLORS[i % len(COLORS)], label=label)
    ticks = sorted({row["evaluations"] for row in rows})
    panels[0].set_ylabel("energy above hull as drawn, eV/atom")
    if judged:
        panels[1].set_ylabel("metastable, unique, novel, as judged, %")
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45 if len(ticks) > 6 else 0)
        panel.minorticks_off()
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
        panel.set_xlabel("network evaluations for a crystal")
    panels[0].legend(frameon=False)
    return figure


def _line(panel: Axes, x: Sequence[float], y: ArrayLike, spread: ArrayLike, *, color: str, label: str) -> None:
    panel.errorbar(x, y, yerr=spread, marker="o", capsize=3, linewidth=1.8, color=color, label=label)
