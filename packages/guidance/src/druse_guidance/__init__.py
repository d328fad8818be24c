"""Wrappers that steer a score model or hold a process to something; a wrapped model is a model, a process a process."""

from druse_guidance.adapter import AdaptedNetwork, Adapter
from druse_guidance.adapter_file import AdapterError, load_adapter, save_adapter
from druse_guidance.allowed_elements import AllowedElements, parse_elements
from druse_guidance.classifier_free import ClassifierFreeGuidance
from druse_guidance.counted_species import CountedSpecies
from druse_guidance.element_counts import ElementCounts
from druse_guidance.known_parts import KnownParts
from druse_guidance.label_doubts import doubts
from druse_guidance.own_properties import own_properties
from druse_guidance.properties import Property
from druse_guidance.published_elements import PublishedElements
from druse_guidance.required_elements import RequiredElements
from druse_guidance.reward_gradient import Gradient, Pull, RewardGradient, pulls_of
from druse_guidance.steered_process import Reward, SteeredProcess
from druse_guidance.symmetric_process import SymmetricProcess, first_atoms
from druse_guidance.targets import Target, parse_target

__all__ = [
    "AdaptedNetwork",
    "Adapter",
    "AdapterError",
    "AllowedElements",
    "ClassifierFreeGuidance",
    "CountedSpecies",
    "ElementCounts",
    "Gradient",
    "KnownParts",
    "Property",
    "PublishedElements",
    "Pull",
    "RequiredElements",
    "Reward",
    "RewardGradient",
    "SteeredProcess",
    "SymmetricProcess",
    "Target",
    "doubts",
    "first_atoms",
    "load_adapter",
    "own_properties",
    "parse_elements",
    "parse_target",
    "pulls_of",
    "save_adapter",
]
