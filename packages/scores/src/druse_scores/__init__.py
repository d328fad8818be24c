"""Equivariant score networks for crystal diffusion."""

from druse_scores.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from druse_scores.equivariant import PairNetwork, PairNetworkConfig
from druse_scores.precision import has_bfloat16

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "PairNetwork",
    "PairNetworkConfig",
    "has_bfloat16",
    "load_checkpoint",
    "save_checkpoint",
]
