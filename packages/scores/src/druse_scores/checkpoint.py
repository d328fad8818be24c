"""Checkpoints: a folder with ``config.yaml`` (what the model is and where it comes from) and ``weights.safetensors``.

Nothing is ever unpickled.
"""

import hashlib
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from druse_crystal.device import find_device
from druse_crystal.files import replacing
from druse_diffusion import NUM_ELEMENTS, LatticeVP
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from druse_scores.equivariant.network import PairNetwork, PairNetworkConfig
from druse_scores.gemnet import GemNet, GemNetConfig, KnownProperty

CONFIG, WEIGHTS = "config.yaml", "weights.safetensors"
_FORMAT = 3
_KINDS = ("pair", "gemnet")

type Network = PairNetwork | GemNet


class CheckpointError(ValueError):
    """A folder is not a checkpoint that this version can read; the message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network and what a sampler must know about it.

    Attributes:
        network: in evaluation mode.
        num_atoms: how many training crystals had each number of atoms.
        elements: atomic numbers that the training crystals were made of.
        given_species: whether it was trained to find structures of given species, which were never noised (crystal
            structure prediction); what it says about species means nothing.
        density: atoms per Å³ of the lattices that its noise ends in, see ``LatticeVP``.
        provenance: code commit, data hash, steps, hours, losses, seed; free form.
    """

    network: Network
    num_atoms: dict[int, int]
    elements: tuple[int, ...]
    given_species: bool = False
    density: float = LatticeVP.density
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def pair_network(self) -> PairNetwork:
        """Druse's own network: what can be trained and adapted.

        Raises:
            CheckpointError: if it is another one.
        """
        if not isinstance(self.network, PairNetwork):
            raise CheckpointError(
                "the checkpoint holds a published MatterGen network, which Druse draws from and does not train: take a "
                "model of Druse, such as the one that ships"
            )
        return self.network


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
            "network": "pair" if isinstance(checkpoint.network, PairNetwork) else "gemnet",
            "config": _plain(asdict(checkpoint.network.config)),
            "num_atoms": {int(n): int(count) for n, count in sorted(checkpoint.num_atoms.items())},
            "elements": [int(z) for z in checkpoint.elements],
            **({"given_species": True} if checkpoint.given_species else {}),
            **({"density": checkpoint.density} if checkpoint.density != LatticeVP.density else {}),
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
        CheckpointError: if a file is missing, truncated, of another format, holds values that no network has, or its
            tensors do not fit the network.
        ValueError: if there is no such device.
    """
    folder, device = Path(folder), find_device(device)
    for path in (folder / CONFIG, folder / WEIGHTS):
        if not path.is_file():
            raise CheckpointError(
                f"{path} does not exist: a checkpoint is a folder with {CONFIG} and {WEIGHTS}, such as best/ of "
                "`druse-train fit`; correct the path or copy the whole folder again"
            )
    checkpoint = _described(folder / CONFIG)
    _fill(checkpoint.network, folder / WEIGHTS)
    return replace(checkpoint, network=checkpoint.network.to(device).eval())


def read_provenance(folder: Path | str) -> dict[str, Any]:
    """Where a checkpoint came from, without its weights.

    Raises:
        CheckpointError: if its description is missing or broken.
    """
    return _described(Path(folder) / CONFIG).provenance


def weights_hash(network: Network) -> str:
    """SHA-256 of a network's weights in single precision: what an adapter knows its base by."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _described(path: Path) -> Checkpoint:
    """The checkpoint of a description, its network without weights."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        form, kind = content["format"], content["network"]
        if form == _FORMAT and kind in _KINDS:
            return Checkpoint(
                network=_network(kind, content["config"]),
                num_atoms=_checked_num_atoms(content["num_atoms"]),
                elements=_checked_elements(content["elements"]),
                given_species=content.get("given_species") is True,
                density=_checked_density(content.get("density", LatticeVP.density)),
                provenance=_checked_provenance(content.get("provenance")),
            )
    except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path} is not the description of a Druse checkpoint ({reason}): download or copy the folder again, or "
            "train a model with `druse-train fit`"
        ) from error
    raise CheckpointError(
        f"{path} describes a {kind!r} network in format {form}, this version of Druse reads "
        f"{' and '.join(map(repr, _KINDS))} in format {_FORMAT}: use the version of Druse that wrote it, or train a "
        "model with `druse-train fit`"
    )


def _network(kind: str, config: dict[str, Any]) -> Network:
    if kind == "pair":
        return PairNetwork(PairNetworkConfig(**config))
    properties = tuple(KnownProperty(**known) for known in config.get("properties", ()))
    settings: dict[str, Any] = {**config, "properties": properties}
    return GemNet(GemNetConfig(**settings))


def _plain(value: Any) -> Any:
    """As YAML holds it: lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _checked_num_atoms(counts: Any) -> dict[int, int]:
    if not isinstance(counts, dict) or not counts:
        raise ValueError(f"num_atoms is {counts!r}, it must say how many training crystals had each number of atoms")
    for pair in counts.items():
        if not all(type(number) is int and number > 0 for number in pair):
            raise ValueError(f"num_atoms has the entry {pair[0]!r}: {pair[1]!r}, both must be positive whole numbers")
    return counts


def _checked_elements(elements: Any) -> tuple[int, ...]:
    if not isinstance(elements, list) or not elements:
        raise ValueError(f"elements is {elements!r}, it must be a list of atomic numbers")
    for z in elements:
        if type(z) is not int or not 1 <= z <= NUM_ELEMENTS:
            raise ValueError(f"elements holds {z!r}, atomic numbers are whole and lie between 1 and {NUM_ELEMENTS}")
    return tuple(elements)


def _checked_density(density: Any) -> float:
    if not isinstance(density, float) or not 0 < density < math.inf:
        raise ValueError(f"density is {density!r}, it must be a positive number")
    return density


def _checked_provenance(provenance: Any) -> dict[str, Any]:
    if not isinstance(provenance, dict | None):
        raise ValueError(f"provenance is {provenance!r}, it must hold keys and values")
    return provenance or {}


def _fill(network: Network, path: Path) -> None:
    """Give a network its weights."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}): download or copy it again"
        ) from error
    expected = network.state_dict()
    both = expected.keys() & tensors.keys()
    complaints = {
        "lacks": expected.keys() - tensors.keys(),
        "has unknown": tensors.keys() - expected.keys(),
        "has a wrong shape of": {name for name in both if expected[name].shape != tensors[name].shape},
        "has a wrong type of": {n for n in both if expected[n].is_floating_point() != tensors[n].is_floating_point()},
        "holds numbers that are not finite in": {n for n in both if not _finite(tensors[n].to(expected[n].dtype))},
    }
    for complaint, found in complaints.items():
        if found:
            names = sorted(found)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{path} {complaint} tensors {', '.join(names[:3])}{more}, so it is damaged or of another model than "
                f"the {CONFIG} beside it: download or copy the whole folder again"
            )
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
