"""Published checkpoints as they come: a Lightning file, its folder with ``config.yaml``, or a name on the hub.

A Lightning file is a pickle. It is read with torch's restricted unpickler, which knows tensors and plain containers and
refuses everything that would run code.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from druse_scores.gemnet.run_settings import ForeignSettings, RunSettings, run_settings

HUB = "microsoft/mattergen"
PUBLISHED = (
    "mattergen_base",
    "mp_20_base",
    "chemical_system",
    "space_group",
    "dft_mag_density",
    "dft_band_gap",
    "ml_bulk_modulus",
    "dft_mag_density_hhi_score",
    "chemical_system_energy_above_hull",
)
"""Names of the published models."""

_CONFIG = "config.yaml"
_PATIENCE = 10.0  # seconds, for the hub to answer


class LightningFileError(ValueError):
    """Something is no published checkpoint, or not one that can be read; names it and the remedy."""


@dataclass(frozen=True, kw_only=True)
class LightningFile:
    """What a published checkpoint holds that Druse needs.

    Attributes:
        tensors: the state dictionary.
        settings: from ``config.yaml`` or from the file; None if neither has any.
        path: of the file.
        epoch: of training; None if it does not say.
    """

    tensors: dict[str, Tensor]
    settings: RunSettings | None
    path: Path
    epoch: int | None = None


def find_file(source: Path, *, which: str = "last") -> Path:
    """The Lightning file of a path.

    Args:
        source: a file, or a folder with such files in it, in its ``checkpoints``, or in one folder anywhere below, as
            in the folder of a run.
        which: in a folder ``last``: ``last.ckpt``, ``best``: the one with the lowest ``loss_val`` in its name.

    Raises:
        LightningFileError: if there is none, or folders below hold those of several runs.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise LightningFileError(
            f"{source} does not exist: give a Lightning file (.ckpt), its folder, or one of {', '.join(PUBLISHED)}"
        )
    files = sorted([*source.glob("*.ckpt"), *source.glob("checkpoints/*.ckpt")])
    if not files:
        files = sorted(source.rglob("*.ckpt"))
        if len(folders := sorted({str(file.parent) for file in files})) > 1:
            raise LightningFileError(f"{source} holds checkpoints of several runs: give one of {', '.join(folders)}")
    losses = {float(found[1]): file for file in files if (found := re.search(r"loss_val=(\d+\.?\d*)", file.name))}
    if which == "best" and losses:
        return losses[min(losses)]
    named = [file for file in files if file.stem == "last"]
    if which == "best" or not (named or len(files) == 1):
        what = "with loss_val= in its name" if which == "best" else "called last.ckpt"
        raise LightningFileError(f"{source} holds {len(files)} .ckpt files and none {what}: give the path of one")
    return (named or files)[0]


def read_lightning(path: Path) -> LightningFile:
    """Read a Lightning file, and the ``config.yaml`` of its folder or of the one above.

    Raises:
        LightningFileError: if it is truncated, wants to run code, has no state dictionary, or its settings are of
            another network.
    """
    try:
        with path.open("rb") as stream:
            archive = stream.read(2) == b"PK"  # files of before PyTorch 1.6 are none, and cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?i:global) (\S+)", str(error))
        if not found:
            raise LightningFileError(f"{path} is truncated or no Lightning file: download or copy it again") from error
        raise LightningFileError(
            f"{path} wants to run code when it is read ({found[1]}), which weights never need: it was refused; get it "
            "from where it was published"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise LightningFileError(f"{path} is truncated or no Lightning file: download or copy it again") from error
    states = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(states, dict) or not all(isinstance(value, Tensor) for value in states.values()):
        raise LightningFileError(f"{path} has no state_dict of tensors: give a checkpoint that Lightning wrote")
    settings = _beside(path) or content.get("config") or {}
    epoch = content.get("epoch")
    return LightningFile(
        tensors={str(name): value for name, value in states.items()},
        settings=_understood(settings, path) if settings else None,
        path=path,
        epoch=epoch if isinstance(epoch, int) else None,
    )


def _understood(settings: Mapping[str, Any], path: Path) -> RunSettings:
    try:
        return run_settings(settings, path)
    except ForeignSettings as error:
        raise LightningFileError(str(error)) from error


def _beside(path: Path) -> dict[str, Any] | None:
    for folder in (path.parent, path.parent.parent):
        if (folder / _CONFIG).is_file():
            try:
                content = yaml.safe_load((folder / _CONFIG).read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise LightningFileError(f"{folder / _CONFIG} is no YAML: download or copy it again") from error
            if not isinstance(content, dict):
                raise LightningFileError(f"{folder / _CONFIG} holds no settings: download or copy it again")
            return content
    return None


def fetch(name: str) -> tuple[Path, str]:
    """The Lightning file of a published model: from the local cache of the hub, or from the hub.

    Returns:
        the file, and in words where it came from.

    Raises:
        LightningFileError: if there is no such model, or neither cache nor network has it.
    """
    if name not in PUBLISHED:
        raise LightningFileError(f"there is no published model {name!r}: choose of {', '.join(PUBLISHED)}")
    if find_spec("huggingface_hub") is None:
        raise LightningFileError(
            f"{name} has to be fetched, which needs pip install 'druse-scores[hub]': install it, or download the "
            f"folder checkpoints/{name} of {HUB} and give its path"
        )
    files = [f"checkpoints/{name}/{file}" for file in (_CONFIG, "checkpoints/last.ckpt")]
    cached = [_cached(file) for file in files]
    if (there := cached[-1]) is not None and None not in cached:
        return there, f"the local cache of {HUB}"
    return [_from_hub(file, name) for file in files][-1], f"{HUB} on the hub"


def _cached(file: str) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB, file, local_files_only=True))
    except (OSError, ValueError):  # LocalEntryNotFoundError is an OSError
        return None


def _from_hub(file: str, name: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(HUB, file), timeout=_PATIENCE)  # once; a download would ask for half a minute
        return Path(hf_hub_download(HUB, file))
    except Exception as error:  # of whichever HTTP library the hub's client is made of
        raise LightningFileError(
            f"{name} could not be fetched and is not in the local cache: connect to the network, or download the "
            f"folder checkpoints/{name} of {HUB} elsewhere and give its path"
        ) from error
