"""The state of a run on disk: weights, optimiser, place in the data, all in one safetensors file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """

    step: int = 0
    seen: int = 0
    seconds: float = 0.0
    place: Place = START
    best: float = float("inf")


def save_state(
    path: Path, *, weights: dict[str, Tensor], average: dict[str, Tensor], optimizer: dict, progress: Progress
) -> None:
    """Write the state; the file is whole or the old one stays."""
    tensors = {f"weights/{k}": v for k, v in weights.items()} | {f"average/{k}": v for k, v in average.items()}
    for i, moments in optimizer["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in moments.items()}
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with replacing(path) as part:
        save_file(tensors, part, metadata={"progress": json.dumps(asdict(progress))})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[int, dict[str, Tensor]], Progress]:
    """Weights, their average, the optimiser's moments by parameter, and the progress.

    Raises:
        ValueError: if the file is missing, truncated or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the state of a training run ({error}): start without --resume") from error
    progress["place"] = Place(*progress["place"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            i, _, key = rest.partition("/")
            moments.setdefault(int(i), {})[key] = value

    def part(kind: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{kind}/"): v for k, v in tensors.items() if k.startswith(f"{kind}/")}

    return part("weights"), part("average"), moments, Progress(**progress)


def apply_moments(optimizer: torch.optim.Optimizer, moments: dict[int, dict[str, Tensor]]) -> None:
    """Give an optimiser its moments back."""
    state = optimizer.state_dict()
    state["state"] = moments
    optimizer.load_state_dict(state)
