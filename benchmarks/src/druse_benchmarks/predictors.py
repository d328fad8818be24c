"""How far are predicted properties from their labels?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from druse.obtained import CHUNK
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder, write_text
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.predictors import load_predictor
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, plain, write_record

NAME = "predictors"


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Something that predicts a label of crystals.

    Attributes:
        name: see ``druse_energetics.predictors``.
        label: column of the dataset that it is compared with.
        unit: of both.
        high: a value above which a crystal would be called a hit.
        split: of the dataset whose labels it has not seen; empty: it was trained on none of them.
    """

    name: str
    label: str
    unit: str
    high: float
    split: str = ""


KNOWN: Mapping[str, Predictor] = {
    p.name: p
    for p in (
        Predictor(name="bulk-modulus", label="dft_bulk_modulus", unit="GPa", high=200.0),
        Predictor(name="magnetic-density", label="dft_mag_density", unit="µB/Å³", high=0.1),
        Predictor(name="band-gap", label="dft_band_gap", unit="eV", high=1.0, split="test"),
    )
}


def predictors(
    names: tuple[str, ...],
    dataset: CrystalDataset,
    *,
    num: int | None,
    seed: int,
    out: Path,
    work: Path,
    display: Display,
    manifest: Manifest,
) -> Path:
    """Compare predictions with labels, and write one JSON file for each predictor.

    Table, picture and section of the README are made of all files that are there, also of those of earlier calls.

    Args:
        names: of predictors.
        dataset: crystals with labels, as DFT relaxed them.
        num: so many crystals of each label at random; None: all.
        seed: of that choice.
        out: folder of all results.
        work: keeps what is finished; the same call continues there.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a predictor that does not exist, or a label that the dataset lacks.
    """
    chosen = {name: _labelled(name, dataset, num, seed) for name in names}
    manifest.seed = seed
    manifest.settings |= {"predictors": list(names), "num": num, "crystals": len(dataset)}
    for name, rows in chosen.items():
        with manifest.stage(name):
            values = _predicted(KNOWN[name], dataset, rows, writable_folder(work), display)
        document = manifest.as_dict()
        document["machine"] |= machine_load()
        document["timings"] = {name: document["timings"][name]}
        document["results"] = {name: errors(KNOWN[name], *values)}
        document["values"] = {name: np.round(np.stack(values), 5).tolist()}
        write_text(out / NAME / f"{name}.json", json.dumps(plain(document), indent=2, allow_nan=False) + "\n")
    return merge(out)


def merge(out: Path) -> Path:
    """Write table, picture and section of the README from the JSON files that are there; the folder of the record."""
    results, found = {}, {}
    for name in KNOWN:
        file = out / NAME / f"{name}.json"
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            results[name] = content["results"][name]
            labels, predicted = np.array(content["values"][name], dtype=float)  # JSON's null becomes NaN
            found[name] = (labels, predicted)
    return write_record(
        out,
        NAME,
        documents={},
        table=_table(results),
        picture=picture(found),
        caption="Predicted against labelled properties",
    )


def _labelled(name: str, dataset: CrystalDataset, num: int | None, seed: int) -> np.ndarray:
    """Rows of the dataset that a predictor is measured on."""
    if name not in KNOWN:
        raise ValueError(f"there is no predictor {name!r}: choose of {', '.join(KNOWN)}")
    predictor = KNOWN[name]
    if predictor.label not in dataset.labels:
        raise ValueError(f"the dataset has no label {predictor.label}, it has {', '.join(dataset.labels)}")
    usable = np.isfinite(dataset.labels[predictor.label])
    if predictor.split:
        usable &= dataset.split == predictor.split
    rows = np.flatnonzero(usable)
    if not len(rows):
        where = f" in its split {predictor.split}, and {name} may have seen all others" if predictor.split else ""
        raise ValueError(f"the dataset has no crystal with a label {predictor.label}{where}: give another one")
    if num is not None and num < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, num, replace=False))
    return rows


def _predicted(
    predictor: Predictor, dataset: CrystalDataset, rows: np.ndarray, work: Path, display: Display
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of some crystals."""
    journal = Journal(work / f"{predictor.name}.jsonl", "predictions", {"label": predictor.label})
    kept = {line["id"]: line["value"] for line in journal.lines}
    ids = dataset.ids[rows].tolist()
    missing = [k for k, name in enumerate(ids) if name not in kept]
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        values = load_predictor(predictor.name)([dataset.crystals[int(rows[k])] for k in part])
        for k, value in zip(part, values.tolist(), strict=True):
            kept[ids[k]] = value if np.isfinite(value) else None
            journal.keep({"id": ids[k], "value": kept[ids[k]]})
        display.update(predictor.name, len(rows) - len(missing) + start + len(part), len(rows))
    predicted = np.array([np.nan if kept[name] is None else kept[name] for name in ids], dtype=float)
    return dataset.labels[predictor.label][rows], predicted


def errors(predictor: Predictor, labels: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """What the comparison gives: bias, mean and median error, rank correlation, and hits that are hits."""
    there = np.isfinite(predicted)
    a, b = labels[there], predicted[there]
    hit, called = a >= predictor.high, b >= predictor.high
    return {
        "n": len(labels),
        "without_prediction": int((~there).sum()),
        "bias": float(np.median(b - a)),
        "mean_absolute_error": float(np.abs(b - a).mean()),
        "median_absolute_error": float(np.median(np.abs(b - a))),
        "rank_correlation": float(spearmanr(a, b).statistic),
        "high": predictor.high,
        "precision": float(hit[called].mean()) if called.any() else None,
        "recall": float(called[hit].mean()) if hit.any() else None,
        "share_high": float(hit.mean()),
    }


def _table(results: Mapping[str, Any]) -> str:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    rows = [
        [
            f"{name}, {KNOWN[name].unit}",
            f"{row['n']:,}",
            f"{row['without_prediction']}",
            number(row["bias"], "+.3g"),
            number(row["mean_absolute_error"], ".3g"),
            number(row["median_absolute_error"], ".3g"),
            number(row["rank_correlation"], ".3f"),
            f"{number(row['precision'], '.0%')} / {number(row['recall'], '.0%')} at {row['high']:g} "
            f"({number(row['share_high'], '.0%')})",
        ]
        for name, row in results.items()
    ]
    header = [
        "",
        "labels",
        "no prediction",
        "bias",
        "mean error",
        "median error",
        "ranks",
        "precision / recall (share)",
    ]
    seen = [f" {name} is measured on the split {KNOWN[name].split} alone." for name in results if KNOWN[name].split]
    return (
        "None: without a prediction. Bias is the median of predicted minus labelled, ranks is Spearman's correlation; "
        "precision and recall are of what is called at least so high, with the share of labels that are."
        f"{''.join(seen)}\n\n{markdown_table(header, rows)}"
    )


def picture(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Predicted against labelled."""
    figure, panels = canvas(columns=len(found), width=4.2 * len(found), height=4.0)
    for panel, (name, (labels, predicted)) in zip(panels, found.items(), strict=True):
        top = 1.05 * float(np.nanquantile(np.concatenate([labels, predicted]), 0.999))
        panel.plot([0, top], [0, top], color="#94a3b8", linewidth=1)
        panel.plot(labels, predicted, "o", markersize=2.5, alpha=0.4, color=COLORS[0])
        panel.set_xlim(0, top)
        panel.set_ylim(0, top)
        panel.set_xlabel(f"{KNOWN[name].label}, {KNOWN[name].unit}")
        panel.set_ylabel("predicted")
    return figure
