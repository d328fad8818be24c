"""The state of a run on disk: weights, optimiser, place in the data, all in one safetensors file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from druse_crystal.files import replacing
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from druse_train.batches import START, Place


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps.
        seen: crystals learnt from, repeats counted.
        seconds: of training.
        place: next batch.
        best: lowest validation loss so far.
        worse: validations since then.
    """

    step: int = 0
    seen: int = 0
    seconds: float = 0.0
    place: Place = START
    best: float = float("inf")
    worse: int = 0


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run began with, and has to go on with; None where an older version of Druse did not keep it.

    Attributes:
        seed: of the recipe.
        data: ``fingerprint`` of the crystals.
        runs: provenance of the runs behind the weights that it started from.
        learnt: of an adapter, a hash of base, properties and labels.
    """

    seed: int | None = None
    data: str | None = None
    runs: list[dict[str, Any]] | None = None
    learnt: str | None = None


class State(NamedTuple):
    """A run as it was saved.

    Attributes:
        weights: by name.
        average: of the weights.
        moments: of the optimiser, by parameter.
        progress: how far the run has come.
        origin: what it began with.
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]
    progress: Progress
    origin: Origin


def save_state(
    path: Path,
    *,
    weights: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: dict,
    progress: Progress,
    origin: Origin,
) -> None:
    """Write the state; the file is whole or the old one stays."""
    tensors = {f"weights/{k}": v for k, v in weights.items()} | {f"average/{k}": v for k, v in average.items()}
    for i, moments in optimizer["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in moments.items()}
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    metadata = {name: json.dumps(asdict(part)) for name, part in (("progress", progress), ("origin", origin))}
    with replacing(path) as part:
        save_file(tensors, part, metadata=metadata)


def load_state(path: Path) -> State:
    """Read a state.

    Raises:
        ValueError: if the file is missing, truncated or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            content = json.loads(metadata["progress"])
            progress = Progress(**content | {"place": Place(*content["place"])})
            origin = Origin(**json.loads(metadata.get("origin", "{}")))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the state of a training run ({error}): start without --resume") from error
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            i, _, key = rest.partition("/")
            moments.setdefault(int(i), {})[key] = value

    def part(kind: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{kind}/"): v for k, v in tensors.items() if k.startswith(f"{kind}/")}

    return State(weights=part("weights"), average=part("average"), moments=moments, progress=progress, origin=origin)


def check_origin(path: Path, kept: Origin, now: Origin) -> None:
    """Refuse to go on with another seed or other crystals than a run began with.

    Raises:
        ValueError: names the state and what differs.
    """
    if kept.seed not in (None, now.seed):
        raise ValueError(
            f"{path} is the state of a run with seed {kept.seed}, the recipe has seed {now.seed}: set the seed to "
            f"{kept.seed}, or choose another --out"
        )
    if kept.data not in (None, now.data):
        raise ValueError(
            f"{path} is the state of a run on other crystals: resume with the data (and data.max_atoms) that it began "
            "with, which the recipe.yaml beside it names, or choose another --out"
        )

    if kept.learnt not in (None, now.learnt):
        raise ValueError(
            f"{path} is the state of a run with another base, other properties or other labels: resume with the "
            "recipe.yaml beside it and the files that it names, or choose another --out"
        )


def apply_moments(optimizer: torch.optim.Optimizer, moments: dict[int, dict[str, Tensor]]) -> None:
    """Give an optimiser its moments back."""
    state = optimizer.state_dict()
    state["state"] = moments
    optimizer.load_state_dict(state)
