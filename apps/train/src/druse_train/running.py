"""One training run on Lightning: begin or go on, run, keep."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder, write_text
from druse_crystal.settings import settings_text
from torch.utils.data import DataLoader

from druse_train.batches import fingerprint
from druse_train.config import RunConfig
from druse_train.diffusion_module import DiffusionModule, make_stream
from druse_train.recorder import STATE, Recorder, Resumed
from druse_train.state import Origin, Progress, State, check_origin

Show = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run leaves behind, and what it says on the way.

    Attributes:
        card: data and code; goes into the provenance of all weights.
        runs: provenance of the runs behind the weights that it starts from.
        show: called with news about training and validation.
        write: writes the averaged weights of a module into a folder, with their provenance.
        examine: what else is measured at a validation, by name, of a module with its averaged weights in place.
        patience: stop after so many validations without a better one; None: go on to the end.
        learnt: of an adapter, a hash of base, properties and labels; a resumed run has to have the same.
    """

    card: dict[str, Any]
    runs: list[dict[str, Any]]
    show: Show
    write: Callable[[DiffusionModule, Path, dict[str, Any]], None]
    examine: Callable[[DiffusionModule], dict[str, float]] | None = None
    patience: int | None = None
    learnt: str | None = None


def training_parts(config: RunConfig, dataset: CrystalDataset) -> tuple[CrystalDataset, CrystalDataset]:
    """The crystals to learn from and those to validate on, without those that are too large.

    Raises:
        ValueError: if there is none of either.
    """
    small = dataset.num_atoms <= config.data.max_atoms
    parts = {name: dataset.select(np.flatnonzero(small & (dataset.split == name))) for name in ("train", "val")}
    for name, part in parts.items():
        if len(part) == 0:
            raise ValueError(
                f"the dataset has no crystals with at most {config.data.max_atoms} atoms in split {name!r}: raise "
                "data.max_atoms, or build the dataset with a share for each split (`druse-train data build`)"
            )
    return parts["train"], parts["val"]


def prepare(config: RunConfig) -> None:
    """Set the number of threads, and keep Lightning's advertisements out of the way."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def train(
    module: DiffusionModule,
    parts: tuple[CrystalDataset, CrystalDataset],
    folder: Path,
    *,
    state: State | None,
    task: Task,
) -> Progress:
    """Train a module until its recipe ends it.

    Args:
        module: with its data, new.
        parts: the crystals to learn from and those to validate on.
        folder: where ``recipe.yaml``, ``best``, ``last``, ``state.safetensors`` and ``log.csv`` go; nothing is written
            there before everything has been checked.
        state: to continue from.
        task: what to keep and to say.

    Returns:
        how far it came.

    Raises:
        ValueError: if the state does not fit recipe and data, or the folder cannot be written to.
        KeyboardInterrupt: if it was stopped; what was learnt is kept.
    """
    config = module.config
    origin = Origin(seed=config.seed, data=fingerprint(parts), runs=task.runs, learnt=task.learnt)
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

    resumed = [] if state is None else [Resumed(state.moments)]
    recorder = Recorder(folder, task.card, origin, task.show, task.write, examine=task.examine, patience=task.patience)
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=config.devices,
        max_steps=-1 if config.max_steps is None else max(0, config.max_steps - module.progress.step),
        max_epochs=-1,
        gradient_clip_val=config.optimizer.gradient_clip,
        callbacks=[*resumed, recorder],
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
    buckets = size_buckets(parts[1].num_atoms, pair_budget=config.data.pair_budget, max_batch=config.data.max_batch)
    validation: Any = [torch.tensor(bucket) for bucket in buckets]  # a list is a dataset to torch
    write_text(writable_folder(folder) / "recipe.yaml", settings_text(config))
    try:
        trainer.fit(
            module,
            train_dataloaders=DataLoader(stream, batch_size=None, collate_fn=_unchanged),
            val_dataloaders=DataLoader(validation, batch_size=None, collate_fn=_unchanged),
        )
    except SystemExit as end:
        if trainer.interrupted:  # Lightning ends the program, and it is not its to end
            raise KeyboardInterrupt from end
        raise
    return replace(module.progress)


def _unchanged(batch: Any) -> Any:
    return batch


def _tensorboard(folder: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ValueError("tensorboard: true needs the package: pip install tensorboard") from error
