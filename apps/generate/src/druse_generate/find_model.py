"""Which checkpoint a run uses: the one that ships, a folder, or a published one by its name."""

import os
from pathlib import Path

from druse_crystal.console import Display
from druse_scores import import_checkpoint, save_checkpoint
from druse_scores.checkpoint import WEIGHTS
from druse_scores.gemnet.lightning_file import PUBLISHED

from druse_generate.config import MODEL


def find_model(model: Path | None, *, display: Display) -> Path:
    """The checkpoint folder that was asked for.

    A published model is imported when it is first asked for and kept in ``$XDG_CACHE_HOME/druse`` (``~/.cache/druse``).

    Args:
        model: folder, or name of a published model if there is no such path; None: the model that ships.
        display: told where a published model comes from.

    Raises:
        ValueError: if it does not exist, is a Lightning checkpoint that has to be imported first, or is a published
            model that can neither be fetched nor found.
    """
    if model is None:
        return MODEL
    name = str(model)
    if model.suffix == ".ckpt" or (not (model / WEIGHTS).is_file() and any(model.rglob("*.ckpt"))):
        raise ValueError(
            f"{model} holds a Lightning checkpoint and none of Druse: import it by `druse "
            f"import-checkpoint {model} --out FOLDER`, and give that folder"
        )
    if model.exists():
        return model
    if name not in PUBLISHED:
        raise ValueError(
            f"{name} does not exist: give a checkpoint folder, or the name of a published model, one of "
            f"{', '.join(PUBLISHED)}"
        )
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "druse" / name
    if (folder / "config.yaml").is_file():
        display.say(f"{name}: as imported before, {folder}")
        return folder
    display.say(f"{name}: fetching and importing it")
    checkpoint = import_checkpoint(name)
    save_checkpoint(checkpoint, folder)
    origin = f" from {checkpoint.provenance['from']}" if "from" in checkpoint.provenance else ""
    display.say(f"{name}: imported{origin} into {folder}")
    return folder
