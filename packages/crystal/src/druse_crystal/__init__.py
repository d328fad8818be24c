"""Crystals, batches of crystals, periodic neighbours, symmetry, readers and datasets."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from druse_crystal.batch import CrystalBatch
    from druse_crystal.crystal import Crystal

__all__ = ["Crystal", "CrystalBatch"]

_MODULES = {"Crystal": "druse_crystal.crystal", "CrystalBatch": "druse_crystal.batch"}


def __getattr__(name: str):
    """The classes, imported when they are asked for: torch takes seconds, and ``druse --help`` needs none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
