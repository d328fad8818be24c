"""Classical proposers of crystals: substitution, random structures, and floors to compare with."""

from druse_baselines.airss import Airss
from druse_baselines.charge_balanced import ChargeBalanced
from druse_baselines.ion_exchange import IonExchange
from druse_baselines.iterated_substitution import IteratedSubstitution
from druse_baselines.proposer import Proposer, Target
from druse_baselines.random_search import RandomSearch
from druse_baselines.resampling import Resampling
from druse_baselines.substitution import Substitution
from druse_baselines.volumes import AtomicVolumes

__all__ = [
    "Airss",
    "AtomicVolumes",
    "ChargeBalanced",
    "IonExchange",
    "IteratedSubstitution",
    "Proposer",
    "RandomSearch",
    "Resampling",
    "Substitution",
    "Target",
]
