"""Noise that keeps the symmetry of a crystal: what the network sees when a space group is asked for."""

from functools import cache

import torch
from druse_crystal import CrystalBatch
from druse_crystal.site_symmetry import SiteSymmetry, find_site_symmetry, without_symmetry
from druse_diffusion import ReverseProcess
from druse_guidance import SymmetricProcess
from jaxtyping import Bool, Int
from torch import Tensor


class SymmetricNoise:
    """Noise for training crystals, of some of them such that they keep their space group and Wyckoff positions.

    The symmetry of a crystal is looked for when it is first needed.

    Attributes:
        process: of crystals whose symmetry the noise may break.
        crystals: of the training data.
    """

    def __init__(self, process: ReverseProcess, crystals: CrystalBatch):
        self.process, self.crystals = process, crystals
        self._find = cache(self._symmetry)

    def of(self, index: Int[Tensor, " b"], keeps: Bool[Tensor, " b"], *, device: torch.device) -> SymmetricProcess:
        """The process of one batch.

        Args:
            index: of its crystals in the training data.
            keeps: which of them keep their symmetry.
            device: where the batch is.
        """
        sizes = self.crystals.num_atoms[index].tolist()
        sites = [
            self._find(row) if kept else without_symmetry(size)
            for row, kept, size in zip(index.tolist(), keeps.tolist(), sizes, strict=True)
        ]
        return SymmetricProcess(self.process, sites, device=device)

    def _symmetry(self, row: int) -> SiteSymmetry:
        (crystal,) = self.crystals.select([row]).to_crystals()
        return find_site_symmetry(crystal) or without_symmetry(crystal.num_atoms)
