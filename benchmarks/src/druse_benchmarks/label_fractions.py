"""How many labels does an adapter need? Bulk modulus, learnt from a part of the labels and from all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder
from druse_crystal.manifest import Manifest, file_hash
from druse_guidance import AdaptedNetwork, load_adapter
from druse_scores import load_checkpoint
from druse_train.batches import as_batch
from druse_train.calibration import calibrate, obtainers
from druse_train.config import CalibrationConfig, DataConfig, FinetuneConfig, OptimizerConfig, PropertyConfig
from druse_train.finetuning import ADAPTER, finetune
from druse_train.property_labels import labelled, raw_labels, thinned
from druse_train.recorder import STATE
from druse_train.running import training_parts
from matplotlib.figure import Figure

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, plain, write_record

NAME = "label-fractions"
BULK_MODULUS = PropertyConfig(
    name="bulk_modulus",
    kind="log_scalar",
    unit="GPa",
    column="dft_bulk_modulus",
    low=1.0,
    high=500.0,
    predictor="bulk-modulus",
)


@dataclass(frozen=True, kw_only=True)
class FractionsConfig:
    """What is learnt, and how it is looked at.

    Attributes:
        shares: of the training labels, each above 0 and at most 1.
        steps: of training, for each share.
        num: crystals drawn of each adapter, asked for the labels of held-out crystals.
        guidance: see ``CalibrationConfig``.
        sampler_steps: the same.
        column: of the dataset, with labels in GPa.
        seed: of training, targets and noise.
        threads: of the processor; None: torch's choice.
    """

    shares: tuple[float, ...] = (0.1, 0.3, 1.0)
    steps: int = 3000
    num: int = 96
    guidance: float = 2.0
    sampler_steps: int = 50
    column: str = "dft_bulk_modulus"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self):
        for share in self.shares:
            if not 0 < share <= 1:
                raise ValueError(f"{share:g} of the labels was asked for: a share is above 0 and at most 1")
        if self.steps < 1 or self.num < 3:
            raise ValueError("at least 1 step and 3 crystals are needed to tell anything")

    def recipe(self, share: float, *, base: Path) -> FinetuneConfig:
        """The training of the adapter that sees this share of the labels."""
        return FinetuneConfig(
            base=base,
            properties=(replace(BULK_MODULUS, column=self.column, share=share),),
            dropout=0.1,
            data=DataConfig(pair_budget=4000),
            optimizer=OptimizerConfig(lr=1e-3, warmup_steps=200, ema_decay=0.999),
            validate_every_steps=max(1, self.steps // 12),
            max_steps=self.steps,
            patience=None,
            calibration=CalibrationConfig(num=0),
            seed=self.seed,
            threads=self.threads,
        )

    def calibration(self, *, guidance: float) -> CalibrationConfig:
        """How crystals are drawn."""
        return CalibrationConfig(num=self.num, guidance=guidance, steps=self.sampler_steps, corrector_steps=1)


def label_fractions(
    config: FractionsConfig,
    dataset: CrystalDataset,
    *,
    model: Path,
    out: Path,
    work: Path,
    display: Display,
    manifest: Manifest,
) -> Path:
    """Train an adapter for each share of the labels, and ask each for the labels of held-out crystals.

    Args:
        config: which shares, how long, how many crystals.
        dataset: with a train and a val split, and bulk moduli.
        model: checkpoint folder of the base.
        out: folder of all results.
        work: a folder for each training; the same call goes on there.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: if the dataset has no such labels, or too few of them.
    """
    weights = file_hash(model / "weights.safetensors")
    results: dict[str, Any] = {}
    for share in config.shares:
        recipe, folder = config.recipe(share, base=model), writable_folder(work / f"{share:g}")
        resume = (folder / STATE).is_file()
        with manifest.stage(f"training {share:g}"):
            progress = finetune(
                recipe, dataset, folder, resume=resume, card={"base": weights}, show=_progress(display, share, config)
            )
        with manifest.stage(f"drawing {share:g}"):
            results[f"{share:g}"] = _followed(recipe, config, dataset, folder, model) | {
                "steps": progress.step,
                "crystals_seen": progress.seen,
                "val_total": progress.best,
            }
    manifest.seed = config.seed
    manifest.inputs["model"] = weights
    manifest.settings |= {
        "shares": list(config.shares),
        "steps": config.steps,
        "num": config.num,
        "guidance": config.guidance,
        "sampler_steps": config.sampler_steps,
        "column": config.column,
    }
    manifest.results |= results
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={NAME: plain(document)},
        table=_table(results, config),
        picture=picture(results),
        caption="How well adapters follow, against the number of labels they learnt from",
    )


def _progress(display: Display, share: float, config: FractionsConfig) -> Callable[[str, dict[str, float]], None]:
    def show(_: str, news: dict[str, float]) -> None:
        display.update(f"{NAME}: {share:g} of the labels", int(news.get("step", 0)), config.steps)

    return show


def _followed(
    recipe: FinetuneConfig, config: FractionsConfig, dataset: CrystalDataset, folder: Path, model: Path
) -> dict[str, Any]:
    """What the best adapter of a training does when it is told, and when it is not."""
    learnt, held_out = training_parts(recipe, dataset)
    wanted = recipe.properties[0]
    base = load_checkpoint(model).pair_network
    stored = load_adapter(folder / "best" / ADAPTER, base=base)
    adapter = stored.adapter
    known = np.isfinite(thinned(wanted, raw_labels(wanted, learnt)))
    properties = adapter.properties
    held_out, labels = labelled(list(properties.values()), [raw_labels(wanted, held_out)], held_out)

    def ask(guidance: float) -> dict[str, float]:
        return calibrate(
            AdaptedNetwork(base, [adapter]).eval(),
            properties,
            as_batch(held_out),
            labels,
            config=config.calibration(guidance=guidance),
            obtain=obtainers([wanted]),
            seed=config.seed,
            device=torch.device("cpu"),
        )

    told, untold = ask(config.guidance), ask(0.0)
    return {
        "labels": int(known.sum()),
        "held_out": len(held_out),
        "best_step": stored.provenance["runs"][-1]["steps"],
        "follows": told[f"follows_{wanted.name}"],
        "off": told[f"off_{wanted.name}"],
        "follows_untold": untold[f"follows_{wanted.name}"],
        "off_untold": untold[f"off_{wanted.name}"],
    }


def _table(results: Mapping[str, Mapping[str, Any]], config: FractionsConfig) -> str:
    rows = [
        [
            f"{100 * float(share):g} %",
            f"{r['labels']:,}",
            f"{r['val_total']:.4f}",
            f"{r['best_step']:,}",
            _number(r["follows"], 2),
            _number(r["off"], 0),
            _number(r["follows_untold"], 2),
            _number(r["off_untold"], 0),
        ]
        for share, r in results.items()
    ]
    header = [
        "share",
        "labels",
        "validation loss",
        "best step",
        "rank correlation",
        "off, GPa",
        "not asked: rank correlation",
        "not asked: off, GPa",
    ]
    return (
        f"{markdown_table(header, rows)}\nBulk moduli. {config.steps:,} steps of training each, the best validation "
        f"counts; then {config.num} crystals, asked for the labels of held-out crystals with guidance "
        f"{config.guidance:g}, taken as drawn: Spearman's correlation of asked for and obtained (equation of state), "
        "and the median of the absolute difference. Not asked: the same crystals of the base without an adapter.\n"
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def picture(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Correlation and difference against the number of labels."""
    figure, panels = canvas(2, width=7.2, height=3.2)
    rows: Sequence[Mapping[str, Any]] = list(results.values())
    labels = [r["labels"] for r in rows]
    for panel, key, text in zip(
        panels, ("follows", "off"), ("rank correlation of asked and obtained", "median difference, GPa"), strict=True
    ):
        panel.plot(labels, [r[key] for r in rows], marker="o", color=COLORS[0], label="asked")
        panel.plot(labels, [r[f"{key}_untold"] for r in rows], marker="o", color=COLORS[1], label="not asked")
        panel.set_xscale("log")
        panel.set_xticks(labels, [f"{number:,}" for number in labels])
        panel.xaxis.set_minor_formatter("")
        panel.set_xlabel("labels")
        panel.set_ylabel(text)
        panel.legend(frameon=False)
    return figure
