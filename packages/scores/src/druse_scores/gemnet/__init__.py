"""The score network of the published MatterGen models: GemNet-T with time, masked species and a lattice head.

Zeni et al., arXiv:2312.03687, appendix B; Gasteiger et al., "GemNet: universal directional graph neural networks for
molecules", arXiv:2106.08903. Modules are named as the tensors of the published checkpoints are.
"""

from druse_scores.gemnet.config import GemNetConfig, KnownProperty
from druse_scores.gemnet.network import GemNet

__all__ = ["GemNet", "GemNetConfig", "KnownProperty"]
