"""Published checkpoints as they come: a Lightning file, its folder with ``config.yaml``, or a name on the hub.

A Lightning file is a pickle. It is read with torch's restricted unpickler, which knows tensors, plain containers and
the few types of ``HARMLESS``, and refuses everything that could run code.
"""

import argparse
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from druse_scores.gemnet.run_settings import MODULE, ForeignSettings, RunSettings, run_settings

HUB = "microsoft/mattergen"
PUBLISHED: Mapping[str, str] = {
    "mattergen_base": "81668ee12afc1ee1",
    "mp_20_base": "ffb80e4425a6f99f",
    "chemical_system": "4ad21d977c2b776a",
    "space_group": "1b6ab06739f4319d",
    "dft_mag_density": "01dd3e8680516541",
    "dft_band_gap": "864ebbfd360e0a82",
    "ml_bulk_modulus": "67f7f5e28695776e",
    "dft_mag_density_hhi_score": "98a4f2f9263b013d",
    "chemical_system_energy_above_hull": "50d4a51b109b178d",
}
"""Published models by name, each with the first 16 digits of the SHA-256 of its ``last.ckpt`` on the hub as of 2025."""

HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    *(
        (pathlib.PurePosixPath, f"pathlib{part}.{kind}Path")
        for part in ("", "._local")
        for kind in ("Posix", "Windows")
    ),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((np.empty(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
)
"""Types that trainers leave beside the weights, as ``torch.serialization.safe_globals`` takes them."""

_LAST = re.compile(r"last(?:-v(\d+))?")
_CONFIG = "config.yaml"
_POINTER = b"version https://git-lfs"
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
        which: in a folder ``last``: ``last.ckpt``, or the latest of ``last-v1.ckpt`` and so on, as Lightning names what
            a resumed run ends with; ``best``: the one with the lowest ``loss_val`` in its name.

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
    if not files and (source / "weights.safetensors").is_file():
        raise LightningFileError(f"{source} is a checkpoint of Druse already: give it to --model as it is")
    losses = {float(found[1]): file for file in files if (found := re.search(r"loss_val=(\d+\.?\d*)", file.name))}
    if which == "best" and losses:
        return losses[min(losses)]
    last = {int(found[1] or 0): file for file in files if (found := _LAST.fullmatch(file.stem))}
    if which == "best" or not (last or len(files) == 1):
        what = "with loss_val= in its name" if which == "best" else "called last.ckpt"
        other = ", or take --which best" if which == "last" and losses else ""
        raise LightningFileError(
            f"{source} holds {len(files)} .ckpt files and none {what}: give the path of one{other}"
        )
    return last[max(last)] if last else files[0]


def has_lightning(path: Path) -> bool:
    """Whether a path is a file, or a folder with Lightning files in it or anywhere below."""
    return path.is_file() or any(path.rglob("*.ckpt"))


def read_lightning(path: Path) -> LightningFile:
    """Read a Lightning file, and the ``config.yaml`` of its folder or of the one above.

    Raises:
        LightningFileError: if it is truncated, wants to run code, has no state dictionary, or its settings are of
            another network.
    """
    content = _content(path)
    states = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(states, dict) or not all(isinstance(value, Tensor) for value in states.values()):
        raise LightningFileError(f"{path} has no state_dict of tensors: give a checkpoint that Lightning wrote")
    settings, told_by = _settings(content.get("config"), path)
    epoch = content.get("epoch")
    return LightningFile(
        tensors={str(name): value for name, value in states.items()},
        settings=_understood(settings, told_by) if settings else None,
        path=path,
        epoch=epoch if isinstance(epoch, int) else None,
    )


def _content(path: Path) -> Any:
    damaged = f"{path} is truncated, damaged or no Lightning file: download or copy it again"
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_POINTER))
        if start == _POINTER:
            raise LightningFileError(
                f"{path} is the pointer of Git LFS to a file, not the file: run `git lfs pull` where it was cloned"
            )
        archive = start.startswith(b"PK")  # files of before PyTorch 1.6 are none, and cannot be mapped
        wrong = _wrong_checksum(path) if archive else None
        with torch.serialization.safe_globals([*HARMLESS]):
            content = None if wrong else torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?i:global) (\S+)", str(error))
        if not found:
            raise LightningFileError(damaged) from error
        raise LightningFileError(
            f"{path} holds {found[1]}, which could run code when it is read and which weights never need: it was "
            "refused; get the file from where it was published, or save {'state_dict': ...} of it alone, its "
            f"settings beside it in {_CONFIG}"
        ) from error
    except LightningFileError:
        raise
    except Exception as error:  # damaged pickles raise whatever their bytes happen to say
        raise LightningFileError(damaged) from error
    if wrong:
        raise LightningFileError(f"{damaged} (the checksum of {wrong} in it is wrong)")
    return content


def _wrong_checksum(path: Path) -> str | None:
    """The first part of an archive that is not what was written; torch does not look."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _understood(settings: Mapping[str, Any], path: Path) -> RunSettings:
    try:
        return run_settings(settings, path)
    except ForeignSettings as error:
        raise LightningFileError(str(error)) from error


def _settings(inside: Any, path: Path) -> tuple[Mapping[str, Any], Path]:
    """Settings of a Lightning file and where they stand: in a ``config.yaml`` near it, or in the file itself.

    A ``config.yaml`` of something else is passed over where the file has its own.
    """
    own = inside if isinstance(inside, Mapping) else {}
    for beside in (path.parent / _CONFIG, path.parent.parent / _CONFIG):
        if beside.is_file():
            try:
                content = yaml.safe_load(beside.read_text(encoding="utf-8"))
            except (yaml.YAMLError, ValueError, RecursionError) as error:  # not UTF-8, a date that does not exist
                raise LightningFileError(f"{beside} is no YAML: download or copy it again") from error
            if isinstance(content, dict) and (MODULE in content or not own):
                return content, beside
            if not own:
                raise LightningFileError(f"{beside} holds no settings: download or copy it again")
    return own, path


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
            f"folder checkpoints/{name} of {HUB} and import it by `druse import-checkpoint FOLDER`"
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
            f"folder checkpoints/{name} of {HUB} elsewhere and import it by `druse import-checkpoint FOLDER`"
        ) from error
