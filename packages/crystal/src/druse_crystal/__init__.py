"""Crystals, batches of crystals, periodic neighbours, symmetry, readers and datasets."""

from druse_crystal.batch import CrystalBatch
from druse_crystal.crystal import Crystal

__all__ = ["Crystal", "CrystalBatch"]
