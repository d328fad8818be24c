"""Which checkpoint a run uses: the one that ships, a folder, or a published one by its name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from druse_crystal.console import Display
from druse_scores import import_checkpoint, save_checkpoint
from druse_scores.checkpoint import CONFIG, WEIGHTS, read_provenance
from druse_scores.gemnet.lightning_file import PUBLISHED, has_lightning

from druse_generate.config import MODEL


def find_model(model: Path | None, *, display: Display) -> Path:
    """The checkpoint folder that was asked for.

    A published model is imported when it is first asked for and kept in ``$XDG_CACHE_HOME/druse`` (``~/.cache/druse``).
    What a folder of its name gives is imported each time, and kept apart: it may be another model.

    Args:
        model: folder of a checkpoint of Druse, or name of a published model, which a folder of that name with its
            files can give instead of the hub; None: the model that ships.
        display: told where a published model comes from.

    Raises:
        ValueError: if it does not exist, is a Lightning checkpoint that has to be imported first, or is a published
            model that can neither be fetched nor found.
    """
    if model is None:
        return MODEL
    name = str(model)
    if _is_checkpoint(model):
        return model
    if name in PUBLISHED:
        return _imported(name, display)
    if has_lightning(model):
        raise ValueError(
            f"{model} is a Lightning checkpoint or holds one, and none of Druse: import it by `druse "
            f"import-checkpoint {model} --out FOLDER`, and give that folder"
        )
    if not model.exists():
        raise ValueError(
            f"{name} does not exist: give a checkpoint folder, or the name of a published model, one of "
            f"{', '.join(PUBLISHED)}"
        )
    return model  # what is missing there, or wrong, is said when it is read


def _imported(name: str, display: Display) -> Path:
    """A published model, in the cache of Druse: from a folder of its name, the cache, or the hub's client."""
    here, cache = Path(name), Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "druse"
    given, folder = has_lightning(here), cache / name
    if _is_checkpoint(folder) and not given:
        display.say(f"{name}: as imported before from {_origin(read_provenance(folder), name)}, {folder}")
        return folder
    display.say(f"{name}: {f'importing it from the folder {here}' if given else 'fetching and importing it'}")
    checkpoint = import_checkpoint(name)
    if given:
        folder = cache / "folders" / f"{name}-{checkpoint.provenance['sha256'][:16]}"
    save_checkpoint(checkpoint, folder)
    display.say(f"{name}: imported from {_origin(checkpoint.provenance, name)} into {folder}")
    return folder


def _origin(provenance: Mapping[str, Any], name: str) -> str:
    note = f" ({provenance['note']})" if "note" in provenance else ""
    return f"{provenance.get('from', name)}{note}"


def _is_checkpoint(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
