"""Training on Lightning: check everything, begin or go on, run."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from druse_crystal.batch import size_buckets
from druse_crystal.dataset import CrystalDataset
from druse_crystal.files import writable_folder, write_text
from druse_crystal.settings import settings_text
from druse_scores import PairNetwork, load_checkpoint
from torch.utils.data import DataLoader

from druse_train.batches import as_batch, fingerprint
from druse_train.config import FitConfig
from druse_train.diffusion_module import DiffusionModule, make_stream
from druse_train.recorder import STATE, Recorder, Resumed
from druse_train.state import Origin, Progress, State, check_origin, load_state


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

    resumed = [] if state is None else [Resumed(state.moments)]
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=config.devices,
        max_steps=-1 if config.max_steps is None else max(0, config.max_steps - module.progress.step),
        max_epochs=-1,
        gradient_clip_val=config.optimizer.gradient_clip,
        callbacks=[*resumed, Recorder(folder, card, origin, show)],
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
