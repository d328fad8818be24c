"""The training of an adapter."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from druse_crystal.dataset import CrystalDataset
from druse_crystal.manifest import file_hash
from druse_guidance import AdaptedNetwork, Adapter, Property, doubts, load_adapter, save_adapter
from druse_scores import PairNetwork, load_checkpoint, save_checkpoint, weights_hash

from druse_train.batches import as_batch
from druse_train.calibration import calibrate, obtainers
from druse_train.config import FinetuneConfig
from druse_train.diffusion_module import VALIDATION_SEED, DiffusionModule
from druse_train.property_labels import (
    PropertyLabels,
    balanced,
    check_labels,
    labelled,
    learn_properties,
    raw_labels,
    thinned,
)
from druse_train.recorder import STATE
from druse_train.running import Show, Task, prepare, train, training_parts
from druse_train.state import Progress, load_state

ADAPTER, BASE = "adapter.safetensors", "base"


def finetune(
    config: FinetuneConfig,
    dataset: CrystalDataset,
    folder: Path,
    *,
    resume: bool,
    card: dict[str, Any],
    show: Show,
    warn: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Train an adapter on a network.

    Args:
        config: the recipe.
        dataset: with a train and a val split, and labels.
        folder: where ``recipe.yaml``, ``best/adapter.safetensors``, ``last``, ``state.safetensors`` and ``log.csv`` go;
            beside an adapter the network, in ``base``, if it learnt too.
        resume: continue from the folder's state.
        card: data and code; goes into the provenance.
        show: called with news about training and validation.
        warn: called with a sentence about labels that look wrong; the provenance has it too.

    Returns:
        how far it came.

    Raises:
        ValueError: if base or earlier adapters cannot be read or do not belong together, a property cannot be learnt
            from the data, a split has no labels, the state does not fit, or the folder cannot be written to.
    """
    if not config.properties:
        raise ValueError("properties is empty: name what the adapter is to learn, such as [{name: space_group}]")
    if config.adapters and not config.freeze_base:
        raise ValueError(
            "earlier adapters and a base that learns were asked for at once: the earlier ones would not fit the new "
            "base; set freeze_base: true, or learn all properties together"
        )
    checkpoint = load_checkpoint(config.base)
    base = checkpoint.pair_network
    if checkpoint.given_species:
        raise ValueError(
            f"{config.base} finds structures of given species, and an adapter asks for properties of crystals whose "
            "species are drawn: take another base"
        )
    earlier = [load_adapter(path, base=base).adapter for path in config.adapters]
    parts = training_parts(config, dataset)
    obtain = obtainers(config.properties)
    raw = [[raw_labels(wanted, part) for wanted in config.properties] for part in parts]
    for split, labels in zip(("train", "val"), raw, strict=True):
        check_labels(config.properties, labels, split=split)
    raw[0] = [thinned(wanted, labels) for wanted, labels in zip(config.properties, raw[0], strict=True)]
    properties = learn_properties(config.properties, raw[0])
    (learnt, labels), (held_out, held_out_labels) = (
        labelled(properties, values, part) for values, part in zip(raw, parts, strict=True)
    )
    shown = balanced(properties, labels, most=config.balance)
    labels = labels.select(shown)
    if not len(held_out):
        raise ValueError("no crystal of split 'val' has a label: build the dataset with a larger share for it")
    strange = [sentence for p in properties for sentence in doubts(p)]
    strange += [
        f"{name} has no label among the validation crystals, so that nothing tells whether it is learnt"
        for name, known in held_out_labels.known.items()
        if not known.any()
    ]
    for sentence in strange:
        warn(sentence)
    prepare(config)
    torch.manual_seed(config.seed)
    adapter = Adapter(properties, width=base.config.width, num_layers=base.config.num_layers)
    runs = [] if config.init_from is None else _start(adapter, config.init_from, base)
    network = AdaptedNetwork(base, [*earlier, adapter])
    network.network.requires_grad_(not config.freeze_base)
    for old in earlier:
        old.requires_grad_(False)
    module = DiffusionModule(
        config,
        network,
        as_batch(learnt).select(torch.tensor(shown)),
        as_batch(held_out),
        Progress(),
        labels=(labels, held_out_labels),
    )

    def write(module: DiffusionModule, folder: Path, provenance: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with module.averaged():
            if not config.freeze_base:
                both = replace(checkpoint, provenance=checkpoint.provenance | {"finetuned": provenance})
                save_checkpoint(both, folder / BASE)
            save_adapter(folder / ADAPTER, adapter, base=network.network, provenance=provenance)

    def examine(module: DiffusionModule) -> dict[str, float]:
        return calibrate(
            network,
            network.properties,
            module.validation_data,
            held_out_labels,
            config=config.calibration,
            obtain=obtain,
            seed=VALIDATION_SEED,
            device=module.device,
        )

    state = load_state(folder / STATE) if resume else None
    task = Task(
        card=card | ({"warnings": strange} if strange else {}),
        runs=runs,
        show=show,
        write=write,
        examine=examine if config.calibration.num else None,
        patience=config.patience,
        learnt=_fingerprint(config, base, properties, (labels, held_out_labels)),
    )
    return train(module, (learnt, held_out), folder, state=state, task=task)


def _start(adapter: Adapter, path: Path, base: PairNetwork) -> list[dict[str, Any]]:
    """Give an adapter the weights of another one; returns the runs behind these, for the provenance."""
    stored = load_adapter(path, base=base)
    if stored.adapter.properties != adapter.properties:
        raise ValueError(
            f"init_from: {path} knows {', '.join(stored.adapter.properties)}, or learnt of other labels of these: "
            "start from an adapter of the same properties and data, or from none"
        )
    adapter.load_state_dict(stored.adapter.state_dict())
    return stored.provenance.get("runs", [])


def _fingerprint(
    config: FinetuneConfig, base: PairNetwork, properties: Sequence[Property], labels: Sequence[PropertyLabels]
) -> str:
    """SHA-256 of base, earlier adapters, properties and labels: what a resumed run has to have in common."""
    facts = [weights_hash(base), *map(file_hash, config.adapters), *(asdict(p) for p in properties)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for part in labels:
        for name, values in part.values.items():
            digest.update(values.numpy().tobytes() + part.known[name].numpy().tobytes())
    return digest.hexdigest()
