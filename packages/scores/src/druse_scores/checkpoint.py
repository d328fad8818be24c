"""Checkpoints: a folder with ``config.yaml`` (what the model is and where it comes from) and ``weights.safetensors``.

Nothing is ever unpickled.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from druse_crystal.device import find_device
from druse_crystal.files import replacing
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from druse_scores.equivariant.network import PairNetwork, PairNetworkConfig

CONFIG, WEIGHTS = "config.yaml", "weights.safetensors"
_FORMAT = 2
_NETWORK = "pair"


class CheckpointError(ValueError):
    """A folder is not a checkpoint that this version can read; the message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network and what a sampler must know about it.

    Attributes:
        network: in evaluation mode.
        num_atoms: how many training crystals had each number of atoms.
        elements: atomic numbers that the training crystals were made of.
        provenance: code commit, data hash, steps, hours, losses, seed; free form.
    """

    network: PairNetwork
    num_atoms: dict[int, int]
    elements: tuple[int, ...]
    provenance: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint; the description is there last and goes first, so that a folder is whole or no checkpoint.

    Args:
        checkpoint: to be written.
        folder: made when missing.
        dtype: of the stored weights.
    """
    folder = Path(folder)
    text = yaml.safe_dump(
        {
            "format": _FORMAT,
            "network": _NETWORK,
            "config": asdict(checkpoint.network.config),
            "num_atoms": {int(n): int(count) for n, count in sorted(checkpoint.num_atoms.items())},
            "elements": [int(z) for z in checkpoint.elements],
            "provenance": checkpoint.provenance,
        },
        sort_keys=False,
    )
    tensors = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in checkpoint.network.state_dict().items()
    }
    with replacing(folder / CONFIG) as config, replacing(folder / WEIGHTS) as weights:
        config.write_text(text)
        save_file(tensors, weights)
        (folder / CONFIG).unlink(missing_ok=True)


def load_checkpoint(folder: Path | str, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: if a file is missing, truncated, of another format, or its tensors do not fit the network.
        ValueError: if there is no such device.
    """
    folder, device = Path(folder), find_device(device)
    config_path, weights_path = folder / CONFIG, folder / WEIGHTS
    for path in (config_path, weights_path):
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist: a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    try:
        content = yaml.safe_load(config_path.read_text())
        if content["format"] != _FORMAT or content["network"] != _NETWORK:
            raise CheckpointError(
                f"{config_path} describes a {content['network']!r} network in format {content['format']}, "
                f"this version of Druse reads {_NETWORK!r} in format {_FORMAT}"
            )
        network = PairNetwork(PairNetworkConfig(**content["config"]))
        num_atoms = {int(n): int(count) for n, count in content["num_atoms"].items()}
        elements = tuple(int(z) for z in content["elements"])
    except CheckpointError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{config_path} is not the description of a Druse checkpoint ({error})") from error
    try:
        tensors = load_file(weights_path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights_path} is truncated or no safetensors file ({error}); copy it again") from error
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    for what, names in (("lacks", missing), ("has unknown", extra), ("has a wrong shape of", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{weights_path} {what} tensors {', '.join(names[:3])}{more}: not of this {CONFIG}")
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})
    return Checkpoint(
        network=network.to(device).eval(),
        num_atoms=num_atoms,
        elements=elements,
        provenance=content.get("provenance") or {},
    )
