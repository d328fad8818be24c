"""How far are predicted properties from their labels?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.bulk_modulus import bulk_moduli
from druse_energetics.chgnet import CHGNetPotential
from druse_energetics.magnetic_density import magnetic_densities
from druse_energetics.potential import load_potential
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, plain, write_record

NAME = "predictors"
CHUNK = 16


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Something that predicts a label of crystals.

    Attributes:
        name: for tables.
        label: column of the dataset that it is compared with.
        unit: of both.
        high: a value above which a crystal would be called a hit.
        predict: values of crystals, NaN where there is none.
    """

    name: str
    label: str
    unit: str
    high: float
    predict: Callable[..., np.ndarray]


def known_predictors() -> dict[str, Predictor]:
    """All predictors, by name."""

    potential = cache(load_potential)

    def moduli(crystals: Any) -> np.ndarray:
        return bulk_moduli(potential("sevennet-0"), crystals)

    def moments(crystals: Any) -> np.ndarray:
        chgnet = potential("chgnet")
        assert isinstance(chgnet, CHGNetPotential)
        return magnetic_densities(chgnet, crystals)

    return {
        p.name: p
        for p in (
            Predictor(name="bulk-modulus", label="dft_bulk_modulus", unit="GPa", high=200.0, predict=moduli),
            Predictor(name="magnetic-density", label="dft_mag_density", unit="µB/Å³", high=0.1, predict=moments),
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
    """Compare predictions with labels.

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
    known = known_predictors()
    found = {}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no predictor {name!r}: choose of {', '.join(known)}")
        predictor = known[name]
        if predictor.label not in dataset.labels:
            raise ValueError(f"the dataset has no label {predictor.label}, it has {', '.join(dataset.labels)}")
        rows = np.flatnonzero(np.isfinite(dataset.labels[predictor.label]))
        if num is not None and num < len(rows):
            rows = np.sort(np.random.default_rng(seed).choice(rows, num, replace=False))
        with manifest.stage(name):
            found[name] = _predicted(predictor, dataset, rows, writable_folder(work), display)
    manifest.seed = seed
    manifest.settings |= {"predictors": list(names), "num": num, "crystals": len(dataset)}
    manifest.results |= {name: errors(known[name], *values) for name, values in found.items()}
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    document["values"] = {name: np.round(np.stack(values), 5).tolist() for name, values in found.items()}
    return write_record(
        out,
        NAME,
        documents={NAME: plain(document)},
        table=_table(manifest.results, known),
        picture=picture(found, known),
        caption="Predicted against labelled properties",
    )


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
        values = predictor.predict([dataset.crystals[int(rows[k])] for k in part])
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


def _table(results: Mapping[str, Any], known: Mapping[str, Predictor]) -> str:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.0%}"

    rows = [
        [
            f"{name}, {known[name].unit}",
            f"{row['n']:,}",
            f"{row['without_prediction']}",
            f"{row['bias']:+.3g}",
            f"{row['mean_absolute_error']:.3g}",
            f"{row['median_absolute_error']:.3g}",
            f"{row['rank_correlation']:.3f}",
            f"{share(row['precision'])} / {share(row['recall'])} at {row['high']:g} ({share(row['share_high'])})",
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
    return (
        "None: without a prediction. Bias is the median of predicted minus labelled, ranks is Spearman's correlation; "
        "precision and recall are of what is called at least so high, with the share of labels that are.\n\n"
        f"{markdown_table(header, rows)}"
    )


def picture(found: Mapping[str, tuple[np.ndarray, np.ndarray]], known: Mapping[str, Predictor]) -> Figure:
    """Predicted against labelled."""
    figure, panels = canvas(columns=len(found), width=4.2 * len(found), height=4.0)
    for panel, (name, (labels, predicted)) in zip(panels, found.items(), strict=True):
        top = 1.05 * float(np.nanquantile(np.concatenate([labels, predicted]), 0.999))
        panel.plot([0, top], [0, top], color="#94a3b8", linewidth=1)
        panel.plot(labels, predicted, "o", markersize=2.5, alpha=0.4, color=COLORS[0])
        panel.set_xlim(0, top)
        panel.set_ylim(0, top)
        panel.set_xlabel(f"{known[name].label}, {known[name].unit}")
        panel.set_ylabel("predicted")
    return figure
