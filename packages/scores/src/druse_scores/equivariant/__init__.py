"""Druse's own network: equivariant features of atoms, messages over all pairs of a cell."""

from druse_scores.equivariant.network import PairNetwork, PairNetworkConfig

__all__ = ["PairNetwork", "PairNetworkConfig"]
