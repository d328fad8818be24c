"""What is kept of a run: its state every few minutes, a row of the log and the best weights at each validation."""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from druse_train.diffusion_module import FIELDS, DiffusionModule
from druse_train.state import Origin, apply_moments, save_state

COUNTS = ("steps", "crystals_seen", "hours")  # of a run, and of all runs behind a checkpoint
STATE, LOG = "state.safetensors", "log.csv"
AGREE_EVERY = 20  # steps after which the processes of a run compare their clocks
LONGEST_STEP = 60.0  # seconds; a longer one was a pause (a stopped process, a sleeping laptop), which is no training


class Resumed(lightning.Callback):
    """Gives the optimiser of a resumed run its moments back."""

    def __init__(self, moments: dict[int, dict[str, Tensor]]):
        self.moments = moments

    def on_train_start(self, trainer, *_: Any) -> None:
        """Before the first step, when the optimiser is there."""
        apply_moments(trainer.optimizers[0], self.moments)


class Recorder(lightning.Callback):
    """Keeps the run: state every few minutes, a row of the log and the best weights at each validation."""

    def __init__(
        self,
        folder: Path,
        card: dict[str, Any],
        origin: Origin,
        show: Callable[[str, dict[str, float]], None],
        write: Callable[[DiffusionModule, Path, dict[str, Any]], None],
        *,
        examine: Callable[[DiffusionModule], dict[str, float]] | None = None,
        patience: int | None = None,
    ):
        """Choose what to keep, and where.

        Args:
            folder: of the run.
            card: data and code.
            origin: what the run began with.
            show: called with news.
            write: writes the averaged weights of a module into a folder, with their provenance.
            examine: measures more at each validation, with the averaged weights in place.
            patience: stop after so many validations without a better one.
        """
        self.folder, self.card, self.origin, self.show, self.write = folder, card, origin, show, write
        self.examine, self.patience = examine, patience
        self.saved = self.mark = time.monotonic()

    def on_train_start(self, *_: Any) -> None:
        """Start the clock; let a polite kill do what Ctrl-C does.

        Lightning would tell the other processes of it within the step, which waits for them, and so wait for ever.
        """
        self.saved = self.mark = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)

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
        """Log, keep the best; stop where nothing gets better."""
        if trainer.sanity_checking:
            return
        if trainer.is_global_zero:
            self.record(trainer, module)
        over = self.patience is not None and module.progress.worse >= self.patience
        if trainer.strategy.broadcast(over):  # the first process decides, which alone knows the losses
            trainer.should_stop = True
        self.mark = time.monotonic()

    def record(self, trainer, module: DiffusionModule) -> None:
        """A row of the log, the best weights, the state."""
        progress = module.progress
        values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val_")}
        if self.examine is not None:
            with module.averaged():
                values |= self.examine(module)
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
        progress.worse += 1
        if values["val_total"] < progress.best:
            progress.best, progress.worse = values["val_total"], 0
            self.write_checkpoint(module, self.folder / "best", values)
        self.save(trainer, module)

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
        """Write the averaged weights, with what this run and those before it went through."""
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
            told = {name: value for name, value in losses.items() if math.isfinite(value)}
            provenance["validation"] = {name: round(value, 5) for name, value in told.items()}
        self.write(module, folder, provenance)

    def on_exception(self, trainer, module: DiffusionModule, exception: BaseException) -> None:
        """Ctrl-C and a polite kill lose nothing."""
        if isinstance(exception, KeyboardInterrupt | SystemExit) and module.progress.step > 0:
            self.save(trainer, module)

    def on_train_end(self, trainer, module: DiffusionModule) -> None:
        """Keep the end."""
        self.save(trainer, module)
