"""Steering towards what a function of crystals says."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from druse_crystal import Crystal
from druse_guidance import Reward, SteeredProcess


@dataclass(frozen=True, kw_only=True)
class SteeringRequest:
    """What is rewarded, and how hard to pull. Nothing: no steering.

    Attributes:
        reward: ``FILE.py:FUNCTION``, a function that takes a list of crystals and gives a number for each, the larger
            the better; or a name that the application knows.
        particles: crystals drawn for each that is asked for; the time grows with them.
        strength: how much a reward weighs, in units of one over the reward.
        times: at which particles are chosen.
        gradient_below: latest time at which the gradient of the reward acts, where it has one; 0: never.
    """

    reward: str | None = None
    particles: int = 4
    strength: float = 10.0
    times: tuple[float, ...] = (0.5, 0.35, 0.2, 0.1, 0.05)
    gradient_below: float = 0.0

    def __post_init__(self):
        SteeredProcess.check(self.particles, self.strength, self.times)
        if not 0 <= self.gradient_below <= 1:
            raise ValueError(f"gradient_below is {self.gradient_below}, it is a time: it must lie between 0 and 1")
        names = ("particles", "strength", "times", "gradient_below")
        unused = [name for name in names if getattr(self, name) != getattr(SteeringRequest, name)]
        if unused and self.reward is None:
            raise ValueError(
                f"{unused[0]} of steering was given and nothing to steer by: give a reward, or leave it out"
            )

    @property
    def restricts(self) -> bool:
        """Whether anything was asked for."""
        return self.reward is not None

    def read(self, known: Mapping[str, Reward]) -> Reward | None:
        """The reward; None if nothing was asked for.

        Args:
            known: rewards of the application, by name.

        Raises:
            ValueError: if there is no such file, no such function in it, or no such name.
        """
        if self.reward is None:
            return None
        reward = known[self.reward] if self.reward in known else self._of_file(known)
        if self.gradient_below and not callable(getattr(reward, "gradient", None)):
            raise ValueError(
                f"{self.reward} has no gradient: leave out gradient_below, or give an object with a method `gradient`"
            )
        return reward

    def _of_file(self, known: Mapping[str, Reward]) -> Reward:
        assert self.reward is not None
        file, colon, name = self.reward.rpartition(":")
        if not colon or not file.endswith(".py"):
            names = f", or one of {', '.join(known)}" if known else ""
            raise ValueError(f"{self.reward!r} is no reward: give a function as FILE.py:FUNCTION{names}")
        return function_of(Path(file), name)


def function_of(path: Path, name: str) -> Reward:
    """A function of a Python file; the file is run.

    Raises:
        ValueError: if the file cannot be run, or has no such function, or that one fails on rock salt.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} does not exist or is no Python file: give the reward as FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run ({type(error).__name__}: {error}): correct it") from error
    reward = getattr(module, name, None)
    if not callable(reward):
        raise ValueError(f"{path} has no function {name!r}: give the reward as FILE.py:FUNCTION")
    try:
        found = [float(value) for value in reward([_SALT, _SALT])]
    except Exception as error:
        raise ValueError(
            f"{name} of {path} fails on rock salt ({type(error).__name__}: {error}): correct it"
        ) from error
    if len(found) != 2:
        raise ValueError(f"{name} of {path} gives {len(found)} numbers for 2 crystals, it has to give one for each")
    return reward


_SALT = Crystal(
    lattice=2.82 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
    atomic_numbers=np.array([11, 17]),
)
