"""How crystals are drawn."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from druse_crystal.settings import override
from druse_diffusion import AbsorbingD3PM, CrystalProcess, LatticeVP, WrappedVE, fast_times, uniform_times
from druse_guidance import parse_elements

MODEL = Path(__file__).parent / "model"
"""The checkpoint that ships with this package."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Time grid and corrector.

    Attributes:
        grid: ``fast``: times made for few steps; ``uniform``: even times, with 1,000 steps the published grid.
        steps: predictor steps.
        corrector_steps: Langevin steps before each predictor step.
        temperature: of coordinates, see ``CooledCorruption``.
        lattice_temperature: the same of the lattice.
        cold_below: of both, see ``CooledCorruption``.
        species_temperature: see ``AbsorbingD3PM.temperature``.
        remask: see ``AbsorbingD3PM.remask``; without correctors it does nothing.
    """

    grid: str = "fast"
    steps: int = 100
    corrector_steps: int = 3
    temperature: float = 0.25
    lattice_temperature: float = 0.25
    cold_below: float = 1.0
    species_temperature: float = 1.0
    remask: float = 0.3

    def __post_init__(self):
        if self.grid not in _GRIDS:
            raise ValueError(f"sampler grid is {self.grid!r}, it must be one of {', '.join(_GRIDS)}")
        if self.steps < 2:
            raise ValueError(f"the sampler needs at least 2 steps, not {self.steps}")
        if self.corrector_steps < 0:
            raise ValueError(f"the number of corrector steps is {self.corrector_steps}, it cannot be negative")
        for name, value in {"": self.temperature, " of the lattice": self.lattice_temperature}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"the temperature{name} is {value}, it must be a number and not negative")
        if not 0 <= self.cold_below <= 1:
            raise ValueError(f"cold_below is {self.cold_below}, it is a time: it must lie between 0 and 1")
        if not 0 < self.species_temperature < math.inf:
            raise ValueError(f"the temperature of the species is {self.species_temperature}, it must be positive")
        if not 0 <= self.remask <= 1:
            raise ValueError(f"remask is {self.remask}, it is a probability: it must lie between 0 and 1")

    @property
    def times(self) -> list[float]:
        """The grid, falling from 1 to 0."""
        return _GRIDS[self.grid](self.steps)

    @property
    def process(self) -> CrystalProcess:
        """The process that is run backwards."""
        return CrystalProcess(
            lattice=LatticeVP(temperature=self.lattice_temperature, cold_below=self.cold_below),
            frac_coords=WrappedVE(temperature=self.temperature, cold_below=self.cold_below),
            species=AbsorbingD3PM(temperature=self.species_temperature, remask=self.remask),
        )

    @property
    def evaluations(self) -> int:
        """Network evaluations for one crystal."""
        return self.steps * (1 + self.corrector_steps)


_GRIDS = {"fast": fast_times, "uniform": uniform_times}

SAMPLERS = {
    "fast": SamplerConfig(),
    "predictor": SamplerConfig(steps=200, corrector_steps=0),
    "paper": SamplerConfig(
        grid="uniform", steps=1000, corrector_steps=1, temperature=1.0, lattice_temperature=1.0, remask=0.0
    ),
}
"""Samplers by name: Druse's default, its predictor alone, the paper's 1,000 + 1,000."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """One run of the generator.

    Attributes:
        num: crystals to draw.
        seed: of all random numbers.
        num_atoms: fewest and most atoms in a cell; None: as in the training data.
        elements: only these may occur, such as ``Li-Fe-O``; None: all of the training data.
        chemical_system: all of these occur and no others, such as ``Li-Fe-O``; None: whatever comes.
        max_draws: for one crystal of a chemical system; after so many without all of its elements it counts as failed.
        sampler: how to draw.
        batch_pairs: a batch holds as many crystals as keep ``crystals x (largest number of atoms)^2`` below this; it
            decides speed and memory, not the result.
    """

    num: int = 32
    seed: int = 0
    num_atoms: tuple[int, int] | None = None
    elements: str | None = None
    chemical_system: str | None = None
    max_draws: int = 50
    sampler: SamplerConfig = SAMPLERS["fast"]
    batch_pairs: int = 12000

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"{self.num} crystals were asked for: ask for at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}, it must lie between 0 and 2**63 - 1")
        if self.batch_pairs < 1:
            raise ValueError(f"batch_pairs is {self.batch_pairs}, it must be positive")
        if self.max_draws < 1:
            raise ValueError(f"max_draws is {self.max_draws}, it must be at least 1")
        if self.elements is not None and self.chemical_system is not None:
            raise ValueError(
                f"elements {self.elements} and chemical system {self.chemical_system} were asked for at once: give "
                "elements if only these may occur, or a chemical system if all of them must"
            )
        for text in (self.elements, self.chemical_system):
            if text is not None:
                parse_elements(text)
        if self.num_atoms is not None and self.num_atoms[0] > self.num_atoms[1]:
            low, high = self.num_atoms
            text = f"{low}-{high}"
            raise ValueError(f"number of atoms is {text!r}: the first number must not be larger than the second")

    @property
    def allowed(self) -> tuple[int, ...] | None:
        """Atomic numbers of the elements that may occur; None for all of the training data."""
        text = self.elements or self.chemical_system
        return None if text is None else parse_elements(text)

    @property
    def required(self) -> tuple[int, ...]:
        """Atomic numbers of the elements that must occur in every crystal."""
        return () if self.chemical_system is None else parse_elements(self.chemical_system)


def parse_num_atoms(text: str) -> tuple[int, int]:
    """``8`` or ``4-12`` as a range.

    Raises:
        ValueError: if it is neither.
    """
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise ValueError(f"number of atoms is {text!r}: write a number such as 8, or a range such as 4-12") from None
    return low, high


def with_options(
    config: GenerateConfig,
    *,
    num: int | None = None,
    seed: int | None = None,
    num_atoms: str | None = None,
    elements: str | None = None,
    chemical_system: str | None = None,
    sampler: str | None = None,
    **changes: float | None,
) -> GenerateConfig:
    """The settings with those replaced that were given (not None) on the command line.

    Args:
        config: the settings.
        num: how many crystals.
        seed: of all random numbers.
        num_atoms: such as ``8`` or ``4-12``.
        elements: such as ``Li-Fe-O``; wins over a chemical system of the settings.
        chemical_system: such as ``Li-Fe-O``; wins over elements of the settings.
        sampler: a name of ``SAMPLERS``.
        changes: single fields of the sampler.

    Raises:
        ValueError: names the word that makes no sense.
    """
    if sampler is not None and sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}, it must be one of {', '.join(SAMPLERS)}")
    chosen = config.sampler if sampler is None else SAMPLERS[sampler]
    if elements is not None or chemical_system is not None:
        config = replace(config, elements=elements, chemical_system=chemical_system)
    return override(
        config,
        num=num,
        seed=seed,
        num_atoms=None if num_atoms is None else parse_num_atoms(num_atoms),
        sampler=override(chosen, **changes),
    )
