"""Training on Lightning: the module, the moving average, checkpoints that survive a kill."""

import csv
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from druse_crystal import CrystalBatch
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder, write_text
from druse_crystal.settings import settings_text
from druse_diffusion import CrystalProcess, RandomStreams, training_loss
from druse_scores import Checkpoint, PairNetwork, has_bfloat16, load_checkpoint, save_checkpoint
from torch import Tensor
from torch.utils.data import DataLoader

from druse_train.batches import BatchStream, Place, as_batch, fingerprint
from druse_train.config import FitConfig, OptimizerConfig
from druse_train.state import Origin, Progress, State, apply_moments, check_origin, load_state, save_state

FIELDS = ("lattice", "frac_coords", "species")
VALIDATION_SEED = 2**32 - 1
COUNTS = ("steps", "crystals_seen", "hours")  # of a run, and of all runs behind a checkpoint
STATE, LOG = "state.safetensors", "log.csv"
AGREE_EVERY = 20  # steps after which the processes of a run compare their clocks
LONGEST_STEP = 60.0  # seconds; a longer one was a pause (a stopped process, a sleeping laptop), which is no training


def make_optimizer(network: PairNetwork, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW over all parameters, its update in one kernel."""
    return torch.optim.AdamW(
        network.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def make_stream(config: FitConfig, train: CrystalBatch) -> BatchStream:
    """All training crystals in the order of the recipe's seed."""
    return BatchStream(
        num_atoms=train.num_atoms.numpy(),
        pair_budget=config.data.pair_budget,
        max_batch=config.data.max_batch,
        seed=config.seed,
    )


class DiffusionModule(lightning.LightningModule):
    """A score network that learns from one dataset and is validated, by its averaged weights, on another."""

    def __init__(
        self,
        config: FitConfig,
        train: CrystalBatch,
        validation: CrystalBatch,
        progress: Progress,
        start: PairNetwork | None = None,
    ):
        super().__init__()
        self.config, self.progress = config, progress
        self.train_data, self.validation_data = train, validation
        self.mean_batch = make_stream(config, train).mean_size()
        self.process = CrystalProcess()
        torch.manual_seed(config.seed)
        self.network = PairNetwork(config.network)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.hours = 0.0
        self.kept: dict[str, Tensor] | None = None  # weights of the training while a validation uses the average
        self.under_way = (progress.place, 0)  # of the step that is being taken
        self.recent: list[Tensor] = []
        self.sums = torch.zeros(4)

    def on_fit_start(self) -> None:
        """Choose the precision of matrix products, now that the device is known; read the clock."""
        self.agree_on_time()
        self.average = {name: value.to(self.device) for name, value in self.average.items()}
        asked = self.config.mixed_precision
        self.network.mixed_precision = has_bfloat16(self.device) if asked is None else asked

    def training_step(self, batch: tuple[Place, Tensor, int], _: int) -> Tensor:
        """Loss summed over one batch, per crystal of a mean batch: every crystal of the data weighs the same.

        The noise of a crystal depends on seed, epoch and crystal alone.
        """
        place, index, seen = batch
        clean = self.train_data.select(index)
        streams = RandomStreams((self.config.seed << 32) + place.epoch, index, device=self.device)
        losses = training_loss(
            self.process,
            self.network,
            clean.to(device=self.device),
            weights=self.config.weights,
            times=self.config.times,
            generator=streams,
        )
        self.recent.append(torch.stack([getattr(losses, name).detach().mean() for name in FIELDS]))
        self.under_way = (place, seen)
        return losses.total.sum() / self.mean_batch

    def advance(self) -> None:
        """Count an optimiser step and move the average of the weights."""
        self.progress.step += 1
        self.progress.place, seen = self.under_way
        self.progress.seen += seen
        decay = min(self.config.optimizer.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        current = self.network.state_dict()
        with torch.no_grad():
            torch._foreach_lerp_([self.average[k] for k in current], list(current.values()), 1 - decay)

    def agree_on_time(self) -> None:
        """Let all processes read the same hours: learning rate and end depend on them and must not differ."""
        hours = torch.tensor(self.progress.seconds / 3600, device=self.device)
        self.hours = float(self.trainer.strategy.reduce(hours, reduce_op="mean"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return make_optimizer(self.network, self.config.optimizer)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate, a function of the steps and hours that are done: a resumed run has the same."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate()

    def rate(self) -> float:
        """Learning rate of the next step."""
        c = self.config.optimizer
        rate = c.lr * min(1.0, (self.progress.step + 1) / max(1, c.warmup_steps))
        if c.decay_start_hours is not None and self.config.max_hours is not None:
            done = (self.hours - c.decay_start_hours) / max(1e-9, self.config.max_hours - c.decay_start_hours)
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
        return rate

    def on_validation_epoch_start(self) -> None:
        """Put the averaged weights in place."""
        self.kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.sums = torch.zeros(4)

    def validation_step(self, index: Tensor, _: int) -> None:
        """Sum the losses of one batch; times and noise are the same in every validation."""
        clean = self.validation_data.select(index).to(device=self.device)
        losses = training_loss(
            self.process,
            self.network,
            clean,
            weights=self.config.weights,
            generator=RandomStreams(VALIDATION_SEED, index, device=self.device),
        )
        sums = [getattr(losses, name).sum() for name in (*FIELDS, "total")]
        self.sums += torch.stack(sums).cpu()

    def restore(self) -> None:
        """Put the training weights back if the averaged ones are in their place."""
        if self.kept is not None:
            self.network.load_state_dict(self.kept)
            self.kept = None

    def on_validation_epoch_end(self) -> None:
        """Put the training weights back and report means per crystal (coordinates: per atom)."""
        self.restore()
        crystals, atoms = len(self.validation_data), int(self.validation_data.num_atoms.sum())
        means = self.sums / torch.tensor([crystals, atoms, crystals, crystals])
        for name, value in zip((*FIELDS, "total"), means, strict=True):
            self.log(f"val_{name}", value, rank_zero_only=True, logger=False)


class Recorder(lightning.Callback):
    """Keeps the run: state every few minutes, a row of the log and the best weights at each validation."""

    def __init__(
        self,
        folder: Path,
        card: dict[str, Any],
        origin: Origin,
        show: Callable[[str, dict[str, float]], None],
    ):
        self.folder, self.card, self.origin, self.show = folder, card, origin, show
        self.saved = self.mark = time.monotonic()

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        self.saved = self.mark = time.monotonic()

    def on_train_batch_end(self, trainer, module: DiffusionModule, *_: Any) -> None:
        """Count the step and the time, save when it is due, stop when the time is over."""
        module.advance()
        now = time.monotonic()
        module.progress.seconds += min(now - self.mark, LONGEST_STEP)
        self.mark = now
        if module.progress.step % AGREE_EVERY == 0:
            module.agree_on_time()
            limit = module.config.max_hours
            if limit is not None and module.hours > limit:
                trainer.should_stop = True
            losses = dict(zip(FIELDS, torch.stack(module.recent[-100:]).mean(0).tolist(), strict=True))
            self.show("train", losses | {"step": module.progress.step, "hours": module.progress.seconds / 3600})
            if trainer.logger is not None:
                trainer.logger.log_metrics({f"train_{k}": v for k, v in losses.items()}, step=module.progress.step)
        if now - self.saved > module.config.checkpoint_every_minutes * 60:
            self.save(trainer, module)

    def on_validation_end(self, trainer, module: DiffusionModule) -> None:
        """Log, keep the best."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        progress = module.progress
        values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val_")}
        row: dict[str, float] = {"step": progress.step, "seen": progress.seen, "hours": progress.seconds / 3600}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if module.recent:
            means = torch.stack(module.recent).mean(0).tolist()
            row |= {f"train_{name}": value for name, value in zip(FIELDS, means, strict=True)}
            module.recent.clear()
        row |= values
        path = self.folder / LOG
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow({k: round(v, 6) for k, v in row.items()})
        self.show("validation", values)
        if trainer.logger is not None:
            trainer.logger.log_metrics(values, step=progress.step)
        if values["val_total"] < progress.best:
            progress.best = values["val_total"]
            self.write_checkpoint(module, self.folder / "best", values)
        self.save(trainer, module)
        self.mark = time.monotonic()

    def save(self, trainer, module: DiffusionModule) -> None:
        """Write the state and the latest averaged weights."""
        if not trainer.is_global_zero:
            return
        save_state(
            self.folder / STATE,
            weights=module.kept or module.network.state_dict(),
            average=module.average,
            optimizer=trainer.optimizers[0].state_dict(),
            progress=module.progress,
            origin=self.origin,
        )
        self.write_checkpoint(module, self.folder / "last", {})
        self.saved = time.monotonic()

    def write_checkpoint(self, module: DiffusionModule, folder: Path, losses: dict[str, float]) -> None:
        """Write the averaged weights as a checkpoint, with what this run and those before it went through."""
        network = PairNetwork(module.config.network)
        network.load_state_dict(module.average)
        counts = torch.bincount(module.train_data.num_atoms)
        progress = module.progress
        run = self.card | {
            "seed": module.config.seed,
            "steps": progress.step,
            "crystals_seen": progress.seen,
            "hours": round(progress.seconds / 3600, 3),
        }
        runs = [*(self.origin.runs or []), run]
        provenance: dict[str, Any] = {name: round(sum(r[name] for r in runs), 3) for name in COUNTS} | {"runs": runs}
        if losses:
            provenance["validation"] = {name: round(value, 5) for name, value in losses.items()}
        save_checkpoint(
            Checkpoint(
                network=network,
                num_atoms={n: int(k) for n, k in enumerate(counts.tolist()) if k},
                elements=tuple(module.train_data.atomic_numbers.unique().tolist()),
                provenance=provenance,
            ),
            folder,
        )

    def on_exception(self, trainer, module: DiffusionModule, exception: BaseException) -> None:
        """Ctrl-C and a polite kill lose nothing."""
        if isinstance(exception, KeyboardInterrupt | SystemExit) and module.progress.step > 0:
            self.save(trainer, module)

    def on_train_end(self, trainer, module: DiffusionModule) -> None:
        """Keep the end."""
        self.save(trainer, module)


def fit(
    config: FitConfig,
    dataset: CrystalDataset,
    folder: Path,
    *,
    resume: bool,
    card: dict[str, Any],
    show: Callable[[str, dict[str, float]], None],
) -> Progress:
    """Train a network.

    Args:
        config: the recipe.
        dataset: with a train and a val split.
        folder: where ``recipe.yaml``, ``best``, ``last``, ``state.safetensors`` and ``log.csv`` go; nothing is written
            there before everything has been checked.
        resume: continue from the folder's state.
        card: data and code; goes into the provenance of every checkpoint.
        show: called with news about training and validation.

    Returns:
        how far it came.

    Raises:
        ValueError: if a split is empty, the state does not fit recipe and data, or the folder cannot be written to.
    """
    small = dataset.num_atoms <= config.data.max_atoms
    parts = {name: dataset.select(np.flatnonzero(small & (dataset.split == name))) for name in ("train", "val")}
    for name, part in parts.items():
        if len(part) == 0:
            raise ValueError(
                f"the dataset has no crystals with at most {config.data.max_atoms} atoms in split {name!r}: raise "
                "data.max_atoms, or build the dataset with a share for each split (`druse-train data build`)"
            )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    state = load_state(folder / STATE) if resume else None
    start, runs = _start(config) if state is None else (None, _runs_behind(state, config, folder))
    origin = Origin(seed=config.seed, data=fingerprint(parts.values()), runs=runs)
    module = DiffusionModule(config, as_batch(parts["train"]), as_batch(parts["val"]), Progress(), start)
    if state is not None:
        check_origin(folder / STATE, state.origin, origin)
        try:
            module.network.load_state_dict(state.weights)
        except RuntimeError as error:
            raise ValueError(
                f"{folder / STATE} holds another network than the recipe asks for: resume with the recipe.yaml beside "
                "it, or choose another --out"
            ) from error
        module.average, module.progress = state.average, state.progress

    class Resumed(lightning.Callback):
        def on_train_start(self, trainer, _) -> None:
            if state is not None:
                apply_moments(trainer.optimizers[0], state.moments)

    trainer = lightning.Trainer(
        accelerator="auto",
        devices=config.devices,
        max_steps=-1 if config.max_steps is None else max(0, config.max_steps - module.progress.step),
        max_epochs=-1,
        gradient_clip_val=config.optimizer.gradient_clip,
        callbacks=[Resumed(), Recorder(folder, card, origin, show)],
        logger=_tensorboard(folder) if config.tensorboard else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=config.validate_every_steps,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
    )
    stream = replace(
        make_stream(config, module.train_data),
        start=module.progress.place,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    buckets = size_buckets(parts["val"].num_atoms, pair_budget=config.data.pair_budget, max_batch=config.data.max_batch)
    validation: Any = [torch.tensor(bucket) for bucket in buckets]  # a list is a dataset to torch
    write_text(writable_folder(folder) / "recipe.yaml", settings_text(config))
    trainer.fit(
        module,
        train_dataloaders=DataLoader(stream, batch_size=None, collate_fn=_unchanged),
        val_dataloaders=DataLoader(validation, batch_size=None, collate_fn=_unchanged),
    )
    return replace(module.progress)


def _start(config: FitConfig) -> tuple[PairNetwork | None, list[dict[str, Any]]]:
    """The network that a run starts from, if any, and the runs behind it, for the provenance of all checkpoints."""
    if config.init_from is None:
        return None, []
    checkpoint = load_checkpoint(config.init_from)
    network, asked = checkpoint.network, config.network.num_layers
    if 2 <= network.config.num_layers < asked:
        network = network.deepened(asked)
    if network.config != config.network:
        raise ValueError(
            f"init_from: {config.init_from} holds another network than the recipe asks for; "
            "only num_layers may be larger in the recipe"
        )
    return network, checkpoint.provenance.get("runs", [])


def _runs_behind(state: State, config: FitConfig, folder: Path) -> list[dict[str, Any]]:
    """The runs behind a resumed one; a state of before they were kept there has them in its latest checkpoint."""
    if state.origin.runs is not None:
        return state.origin.runs
    last = folder / "last"
    if config.init_from is None or not last.exists():
        return []
    return load_checkpoint(last).provenance.get("runs", [])[:-1]


def _unchanged(batch: Any) -> Any:
    return batch


def _tensorboard(folder: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ValueError("tensorboard: true needs the package: pip install tensorboard") from error
