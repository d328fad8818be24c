"""Steering towards what a function of crystals says."""

import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from druse_crystal import Crystal
from druse_guidance import Gradient, Reward, SteeredProcess, pulls_of


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
        if self.reward in known:
            reward = known[self.reward]
            if self.gradient_below:
                _gradient(reward, self.reward)
            return reward
        file, colon, name = self.reward.rpartition(":")
        if not colon or not file.endswith(".py"):
            names = f", or one of {', '.join(known)}" if known else f"; {_ELSEWHERE}"
            raise ValueError(f"{self.reward!r} is no reward: give a function as FILE.py:FUNCTION{names}")
        return function_of(Path(file), name, with_gradient=self.gradient_below > 0)


def function_of(path: Path, name: str, *, with_gradient: bool = False) -> Reward:
    """A function of a Python file; the file is run, and the function tried on rock salt.

    Args:
        path: the file; it may import others of its folder.
        name: of the function.
        with_gradient: whether its method ``gradient`` is needed; then that is tried too.

    Raises:
        ValueError: if the file cannot be run, or has no such function, or that one or its gradient fails on rock salt.
    """
    with _importable(path.resolve().parent):
        reward = getattr(_run(path), name, None)
        if not callable(reward):
            raise ValueError(f"{path} has no function {name!r}: give the reward as FILE.py:FUNCTION")
        _check_reward(reward, f"{name} of {path}")
        if with_gradient:
            _check_gradient(reward, f"{name} of {path}")
    return reward


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported, as they can where Python runs one of them."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _run(path: Path) -> ModuleType:
    """The module of a file, known to Python, as dataclasses and pickle need it, under a name that hides no other."""
    spec = importlib.util.spec_from_file_location(f"druse_reward_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} does not exist or is no Python file: give the reward as FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # scripts end themselves
        sys.modules.pop(spec.name, None)
        raise ValueError(f"{path} cannot be run ({type(error).__name__}: {error}): correct it") from error
    return module


def _check_reward(reward: Reward, title: str) -> None:
    try:
        found = [float(value) for value in reward([_SALT, _SALT])]
    except (Exception, SystemExit) as error:
        raise ValueError(f"{title} fails on rock salt ({type(error).__name__}: {error}): correct it") from error
    if len(found) != 2:
        raise ValueError(f"{title} gives {len(found)} numbers for 2 crystals, it has to give one for each")
    if strange := [value for value in found if not math.isfinite(value)]:
        raise ValueError(f"{title} gives {strange[0]} for rock salt: give a finite number, a low one for what is bad")


def _check_gradient(reward: Reward, title: str) -> None:
    gradient = _gradient(reward, title)
    try:
        pulls = pulls_of(gradient, [_SALT, _SALT])
    except ValueError as error:
        raise ValueError(f"{title} fails on rock salt: {error}") from error
    if not all(pull is None or pull.is_finite for pull in pulls):
        raise ValueError(
            f"{title} gives for rock salt a gradient that is not finite: correct it, or give None where there is none"
        )


def _gradient(reward: Reward, title: str) -> Gradient:
    gradient = getattr(reward, "gradient", None)
    if not callable(gradient):
        raise ValueError(
            f"{title} has no gradient: leave out gradient_below, or give an object with a method `gradient`"
        )
    return gradient


_SALT = Crystal(
    lattice=2.82 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
    atomic_numbers=np.array([11, 17]),
)
_ELSEWHERE = (
    "rewards by name, such as energy_above_hull, and by target, such as hhi_score<=1500, are there in `druse discover`"
)
