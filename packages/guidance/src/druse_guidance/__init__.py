"""Wrappers that steer a score model or hold a process to something; a wrapped model is a model, a process a process."""

from druse_guidance.allowed_elements import AllowedElements, parse_elements
from druse_guidance.counted_species import CountedSpecies
from druse_guidance.element_counts import ElementCounts
from druse_guidance.known_parts import KnownParts
from druse_guidance.required_elements import RequiredElements
from druse_guidance.symmetric_process import SymmetricProcess, first_atoms

__all__ = [
    "AllowedElements",
    "CountedSpecies",
    "ElementCounts",
    "KnownParts",
    "RequiredElements",
    "SymmetricProcess",
    "first_atoms",
    "parse_elements",
]
