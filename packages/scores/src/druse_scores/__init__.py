"""Equivariant score networks for crystal diffusion."""

from druse_scores.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from druse_scores.equivariant import PairNetwork, PairNetworkConfig

__all__ = ["Checkpoint", "CheckpointError", "PairNetwork", "PairNetworkConfig", "load_checkpoint", "save_checkpoint"]
