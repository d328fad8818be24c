"""Classical proposers of crystals: substitution and random structure search."""

from druse_baselines.proposer import Proposer, Target
from druse_baselines.random_search import RandomSearch
from druse_baselines.substitution import Substitution
from druse_baselines.volumes import AtomicVolumes

__all__ = ["AtomicVolumes", "Proposer", "RandomSearch", "Substitution", "Target"]
