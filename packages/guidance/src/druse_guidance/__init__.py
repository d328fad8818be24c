"""Wrappers that steer a score model; a wrapped model is a model."""

from druse_guidance.allowed_elements import AllowedElements, parse_elements
from druse_guidance.required_elements import RequiredElements

__all__ = ["AllowedElements", "RequiredElements", "parse_elements"]
