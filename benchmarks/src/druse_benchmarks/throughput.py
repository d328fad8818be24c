"""How many crystals a second does the network learn from, and how many does it score?"""

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from druse_crystal import CrystalBatch
from druse_crystal.batch import size_buckets
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset
from druse_crystal.manifest import Manifest, file_hash
from druse_diffusion import CrystalProcess, RandomStreams
from druse_generate.config import GenerateConfig
from druse_scores import PairNetwork, has_bfloat16, load_checkpoint
from druse_train.batches import START, BatchStream, as_batch
from druse_train.config import FitConfig
from druse_train.diffusion_module import DiffusionModule
from druse_train.fitting import make_network
from druse_train.state import Progress
from matplotlib.figure import Figure
from torch import Tensor

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, write_record

TASKS = ("training", "inference")
PRECISIONS = {"float32": False, "mixed": True}
"""Mixed precision is timed only where the hardware has it."""


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig:
    """What is timed.

    Attributes:
        threads: numbers of CPU threads, one after the other.
        repeats: passes over the batches that are timed; the median counts.
        batches: training batches in a pass, drawn evenly over their sizes from one epoch.
        seed: of data order and noise.
        device: torch device.
    """

    threads: tuple[int, ...] = (1,)
    repeats: int = 5
    batches: int = 24
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self):
        for name, value in (("threads", min(self.threads)), ("repeats", self.repeats), ("batches", self.batches)):
            if value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1")


class Learner:
    """Steps of `druse-train fit`, on a network and batches of our choice, without Lightning's loop around them."""

    def __init__(self, network: PairNetwork, recipe: FitConfig, crystals: CrystalBatch):
        recipe = replace(recipe, network=network.config)
        learner = make_network(recipe, network)
        learner.mixed_precision = network.mixed_precision
        self.module = DiffusionModule(recipe, learner, crystals, crystals, Progress()).to(crystals.device)
        self.module.average = {name: value.clone() for name, value in self.module.network.state_dict().items()}
        self.optimizer = self.module.configure_optimizers()

    def step(self, index: Tensor) -> None:
        """Learn from the crystals at these positions."""
        self.module.recent.clear()
        loss = self.module.training_step((START, index, len(index)), 0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.network.parameters(), self.module.config.optimizer.gradient_clip)
        self.module.on_before_optimizer_step(self.optimizer)
        self.optimizer.step()
        self.module.advance()


def training_batches(dataset: CrystalDataset, config: ThroughputConfig, recipe: FitConfig) -> list[np.ndarray]:
    """Positions of the crystals of ``config.batches`` batches, evenly drawn from one epoch sorted by size."""
    data = recipe.data
    stream = BatchStream(
        num_atoms=dataset.num_atoms, pair_budget=data.pair_budget, max_batch=data.max_batch, seed=config.seed
    )
    epoch = sorted(stream.epoch(0), key=lambda batch: float(dataset.num_atoms[batch].mean()))
    count = min(config.batches, len(epoch))
    return [epoch[int((i + 0.5) * len(epoch) / count)] for i in range(count)]


def throughput(
    *, config: ThroughputConfig, model: Path, dataset: CrystalDataset, out: Path, display: Display, manifest: Manifest
) -> Path:
    """Time training and inference of a network, in float32 and in mixed precision, and write the record.

    Training is one step as `druse-train fit` takes it, the corruption of the data included; inference is one forward
    call on noisy crystals, in the batches that `druse generate` makes.

    Args:
        config: what is timed.
        model: checkpoint folder; its size counts, its weights do not.
        dataset: crystals, all splits of which serve.
        out: folder of all results.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a broken checkpoint.
    """
    recipe = FitConfig()
    network = load_checkpoint(model, device=config.device).pair_network
    small = dataset.select(np.flatnonzero(dataset.num_atoms <= recipe.data.max_atoms))
    chosen = training_batches(small, config, recipe)
    crystals = as_batch(small)
    training = [torch.tensor(index) for index in chosen]
    noisy = _noisy(crystals.select(torch.cat(training)), config)
    on_device = crystals.to(device=config.device)
    number = sum(len(index) for index in chosen)
    manifest.seed = config.seed
    manifest.inputs["model"] = file_hash(model / "weights.safetensors")
    manifest.settings["throughput"] = {
        "threads": list(config.threads),
        "repeats": config.repeats,
        "device": config.device,
        "crystals_in_a_pass": number,
        "atoms_per_crystal": mean(small.num_atoms[np.concatenate(chosen)].tolist()),
        "batches": {"training": len(training), "inference": len(noisy)},
        "training_pair_budget": recipe.data.pair_budget,
        "inference_pair_budget": GenerateConfig().batch_pairs,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    rows = []
    before = torch.get_num_threads()
    try:
        for threads in config.threads:
            torch.set_num_threads(threads)
            passes = _passes(network, on_device, training, noisy, recipe)
            rows += _timed(passes, number, config, display, manifest)
    finally:
        torch.set_num_threads(before)
    manifest.results["rows"] = rows
    content = manifest.as_dict()
    return write_record(
        out,
        "throughput",
        documents={"throughput": content},
        table=table(content),
        picture=picture(rows),
        caption="Crystals per second of training and of inference",
    )


def _noisy(clean: CrystalBatch, config: ThroughputConfig) -> list[tuple[CrystalBatch, torch.Tensor]]:
    """Crystals at random times of the diffusion, in the generator's batches."""
    sizes = clean.num_atoms.numpy()
    parts, process = [], CrystalProcess()
    for bucket in size_buckets(sizes, pair_budget=GenerateConfig().batch_pairs):
        part = clean.select(torch.tensor(bucket))
        streams = RandomStreams(config.seed, torch.tensor(bucket))
        t = streams.crystal_uniform(1).squeeze(-1)
        parts.append((process.corrupt(part, t, generator=streams).to(device=config.device), t.to(device=config.device)))
    return parts


def _passes(
    network: PairNetwork,
    crystals: CrystalBatch,
    training: Sequence[Tensor],
    noisy: Sequence[tuple[CrystalBatch, Tensor]],
    recipe: FitConfig,
) -> dict[tuple[str, str], Callable[[], None]]:
    """What is timed, by task and precision."""
    passes: dict[tuple[str, str], Callable[[], None]] = {}
    for name, mixed in PRECISIONS.items():
        if mixed and not has_bfloat16(crystals.device):
            continue
        own = copy.deepcopy(network).eval()
        own.mixed_precision = mixed
        learner = Learner(own, recipe, crystals)
        passes["training", name] = lambda learner=learner: _learn(learner, training)
        passes["inference", name] = lambda own=own: _score(own, noisy)
    return passes


def _timed(
    passes: dict[tuple[str, str], Callable[[], None]],
    number: int,
    config: ThroughputConfig,
    display: Display,
    manifest: Manifest,
) -> list[dict[str, Any]]:
    """A row for each task and precision; their passes take turns, so that a busy moment hits all of them."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in passes}
    threads = torch.get_num_threads()
    total, done = len(passes) * (config.repeats + 1), 0
    load = machine_load()
    if load["load_average"] and load["load_average"][0] > (os.cpu_count() or 1) - threads + 0.5:
        display.warn(f"the machine is busy (load {load['load_average'][0]}): the figures will be too low")
    with manifest.stage(f"timing, {_threads(threads)}"):
        for repeat in range(config.repeats + 1):  # the first one warms up
            for key, work in passes.items():
                start = time.perf_counter()
                work()
                if config.device != "cpu":
                    torch.cuda.synchronize(config.device)
                if repeat:
                    seconds[key].append(time.perf_counter() - start)
                done += 1
                display.update(_threads(threads), done, total)
    rows = []
    for (task, precision), times in seconds.items():
        rates = sorted(number / s for s in times)
        rows.append(
            {
                "task": task,
                "precision": precision,
                "crystals_per_second": median(rates),
                "slowest": rates[0],
                "fastest": rates[-1],
                "seconds": times,
                **load,
            }
        )
    return rows


def _learn(learner: Learner, batches: Sequence[Tensor]) -> None:
    for index in batches:
        learner.step(index)


@torch.no_grad()
def _score(network: PairNetwork, batches: Sequence[tuple[CrystalBatch, torch.Tensor]]) -> None:
    for noisy, t in batches:
        network(noisy, t)


def table(content: dict[str, Any]) -> str:
    """The record as Markdown: rates with their range, and ratios."""
    rows, settings = content["results"]["rows"], content["settings"]["throughput"]
    rates = {(r["threads"], r["task"], r["precision"]): r for r in rows}
    precisions = list(dict.fromkeys(r["precision"] for r in rows))
    lines = []
    for threads in dict.fromkeys(r["threads"] for r in rows):
        for task in TASKS:
            timed = [rates[threads, task, precision] for precision in precisions]
            line = [f"{task}, {_threads(threads)}", *map(_range, timed)]
            if len(timed) > 1:
                line.append(f"{timed[1]['crystals_per_second'] / timed[0]['crystals_per_second']:.2f}")
            lines.append(line)
        ratios = [
            rates[threads, "inference", p]["crystals_per_second"] / rates[threads, "training", p]["crystals_per_second"]
            for p in precisions
        ]
        blank = [""] * (len(ratios) - 1)
        lines.append([f"inference / training, {_threads(threads)}", *(f"{ratio:.2f}" for ratio in ratios), *blank])
    return (
        f"Crystals per second of a network with {settings['parameters']:,} parameters on {rows[0]['processor']}"
        f"{'' if settings['device'] == 'cpu' else ' and ' + settings['device']}; "
        f"{settings['crystals_in_a_pass']:,} crystals of {settings['atoms_per_crystal']:.1f} atoms on average, "
        f"median [slowest, fastest] of {settings['repeats']} passes.\n\n"
        + markdown_table(["", "float32", "mixed precision", "mixed / float32"][: len(lines[0])], lines)
    )


def _range(row: dict[str, Any]) -> str:
    return f"{row['crystals_per_second']:.0f} [{row['slowest']:.0f}, {row['fastest']:.0f}]"


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """Bars of the median, with the slowest and the fastest pass."""
    figure, (panel,) = canvas(width=6.5, height=3.6)
    groups = list(dict.fromkeys((row["task"], row["threads"]) for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    for i, precision in enumerate(precisions):
        part = [
            row
            for group in groups
            for row in rows
            if (row["task"], row["threads"], row["precision"]) == (*group, precision)
        ]
        x = np.arange(len(groups)) + 0.38 * (i - (len(precisions) - 1) / 2)
        height = [row["crystals_per_second"] for row in part]
        spread = [
            [row["crystals_per_second"] - row["slowest"], row["fastest"] - row["crystals_per_second"]] for row in part
        ]
        bars = panel.bar(x, height, 0.36, color=COLORS[i], label=precision, yerr=np.transpose(spread), capsize=3)
        panel.bar_label(bars, fmt="{:.0f}", label_type="center", color="white")
    panel.set_xticks(range(len(groups)), [f"{task}\n{_threads(threads)}" for task, threads in groups])
    panel.set_ylabel("crystals per second")
    panel.grid(axis="x", visible=False)
    panel.legend(frameon=False)
    return figure
