"""Which checkpoint a run uses: the one that ships, a folder, or a published one by its name."""

import os
from pathlib import Path

from druse_crystal.console import Display
from druse_scores import import_checkpoint, save_checkpoint
from druse_scores.gemnet.lightning_file import PUBLISHED

from druse_generate.config import MODEL


def find_model(model: Path | None, *, display: Display) -> Path:
    """The checkpoint folder that was asked for.

    A published model is imported when it is first asked for and kept in ``$XDG_CACHE_HOME/druse`` (``~/.cache/druse``).

    Args:
        model: folder, or name of a published model if there is no such path; None: the model that ships.
        display: told where a published model comes from.

    Raises:
        ValueError: if a published model can neither be fetched nor found.
    """
    if model is None:
        return MODEL
    name = str(model)
    if model.exists() or name not in PUBLISHED:
        return model
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "druse" / name
    if (folder / "config.yaml").is_file():
        display.say(f"{name}: as imported before, {folder}")
        return folder
    display.say(f"{name}: fetching and importing it")
    save_checkpoint(import_checkpoint(name), folder)
    display.say(f"{name}: imported into {folder}")
    return folder
