"""Equivariant score networks for crystal diffusion."""

from druse_scores.adaptation import Adaptation
from druse_scores.checkpoint import Checkpoint, CheckpointError, Network, load_checkpoint, save_checkpoint, weights_hash
from druse_scores.equivariant import PairNetwork, PairNetworkConfig
from druse_scores.gemnet import GemNet, GemNetConfig
from druse_scores.importing import import_checkpoint
from druse_scores.precision import has_bfloat16

__all__ = [
    "Adaptation",
    "Checkpoint",
    "CheckpointError",
    "GemNet",
    "GemNetConfig",
    "Network",
    "PairNetwork",
    "PairNetworkConfig",
    "has_bfloat16",
    "import_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "weights_hash",
]
