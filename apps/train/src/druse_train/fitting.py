"""The training of a network."""

from pathlib import Path
from typing import Any

import torch
from druse_crystal.dataset import CrystalDataset
from druse_scores import Checkpoint, PairNetwork, load_checkpoint, save_checkpoint

from druse_train.batches import as_batch
from druse_train.config import FitConfig
from druse_train.diffusion_module import DiffusionModule
from druse_train.recorder import STATE
from druse_train.running import Show, Task, prepare, train, training_parts
from druse_train.state import Progress, State, load_state


def fit(
    config: FitConfig,
    dataset: CrystalDataset,
    folder: Path,
    *,
    resume: bool,
    card: dict[str, Any],
    show: Show,
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
    parts = training_parts(config, dataset)
    prepare(config)
    state = load_state(folder / STATE) if resume else None
    start, runs = _start(config) if state is None else (None, _runs_behind(state, config, folder))
    network = make_network(config, start)
    module = DiffusionModule(config, network, *map(as_batch, parts), Progress(), given_species=config.given_species)
    return train(module, parts, folder, state=state, task=Task(card=card, runs=runs, show=show, write=write_network))


def make_network(config: FitConfig, start: PairNetwork | None = None) -> PairNetwork:
    """The network of a recipe, with random weights of its seed or those of another."""
    torch.manual_seed(config.seed)
    network = PairNetwork(config.network)
    if start is not None:
        network.load_state_dict(start.state_dict())
    return network


def write_network(module: DiffusionModule, folder: Path, provenance: dict[str, Any]) -> None:
    """Write the averaged weights as a checkpoint."""
    assert isinstance(module.config, FitConfig)
    network = PairNetwork(module.config.network)
    network.load_state_dict(module.average)
    counts = torch.bincount(module.train_data.num_atoms)
    save_checkpoint(
        Checkpoint(
            network=network,
            num_atoms={n: int(k) for n, k in enumerate(counts.tolist()) if k},
            elements=tuple(module.train_data.atomic_numbers.unique().tolist()),
            given_species=module.config.given_species,
            provenance=provenance,
        ),
        folder,
    )


def _start(config: FitConfig) -> tuple[PairNetwork | None, list[dict[str, Any]]]:
    """The network that a run starts from, if any, and the runs behind it, for the provenance of all checkpoints."""
    if config.init_from is None:
        return None, []
    checkpoint = load_checkpoint(config.init_from)
    network, asked = checkpoint.pair_network, config.network.num_layers
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
