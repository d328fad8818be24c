"""Diffusion of crystals: species, fractional coordinates, lattice."""

from druse_diffusion.coordinates import WrappedVE
from druse_diffusion.corruption import Corruption, Fixed
from druse_diffusion.lattice import LatticeVP
from druse_diffusion.process import CrystalProcess, ReverseProcess
from druse_diffusion.random import RandomStreams
from druse_diffusion.sampling import fast_times, sample, uniform_times
from druse_diffusion.score import Conditions, Prediction, ScoreModel
from druse_diffusion.species import MASK, NUM_CLASSES, NUM_ELEMENTS, AbsorbingD3PM
from druse_diffusion.training import FieldLosses, LossWeights, TimeDistribution, training_loss

__all__ = [
    "MASK",
    "NUM_CLASSES",
    "NUM_ELEMENTS",
    "AbsorbingD3PM",
    "Conditions",
    "Corruption",
    "CrystalProcess",
    "FieldLosses",
    "Fixed",
    "LatticeVP",
    "LossWeights",
    "Prediction",
    "RandomStreams",
    "ReverseProcess",
    "ScoreModel",
    "TimeDistribution",
    "WrappedVE",
    "fast_times",
    "sample",
    "training_loss",
    "uniform_times",
]
