"""How crystals are drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from druse_crystal.settings import override
from druse_diffusion import AbsorbingD3PM, CrystalProcess, LatticeVP, WrappedVE, fast_times, uniform_times
from druse_diffusion.published import published_process
from pydantic import BeforeValidator

from druse_generate.composition_request import CompositionRequest
from druse_generate.property_request import PropertyRequest
from druse_generate.seed_request import SeedRequest
from druse_generate.steering_request import SteeringRequest
from druse_generate.wyckoff_sites import parse_wyckoff

MODEL = Path(__file__).parent / "model"
"""The checkpoint that ships with this package."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Time grid and corrector.

    Attributes:
        grid: ``fast``: times made for few steps; ``uniform``: even times, with 1,000 steps the published grid;
            ``published``: even times and the steps of the published code (``druse_diffusion.published``), which has
            no temperatures and does not remask.
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
        warm = self.temperature == self.lattice_temperature == self.species_temperature == 1
        if self.grid == "published" and not (warm and self.remask == 0):
            raise ValueError(
                "the published sampler has no temperatures and does not remask, as the default one does: leave these "
                "options out; in settings write `sampler: published`, or all of temperature: 1, "
                "lattice_temperature: 1, species_temperature: 1 and remask: 0 beside its grid; or take the sampler "
                "paper, with as many steps"
            )

    @property
    def times(self) -> list[float]:
        """The grid, falling from 1 to 0."""
        return _GRIDS[self.grid](self.steps)

    def process(self, *, density: float = LatticeVP.density) -> CrystalProcess:
        """The process that is run backwards.

        Args:
            density: see ``LatticeVP``; that with which the model was trained.
        """
        if self.grid == "published":
            return published_process(self.steps, density=density)
        return CrystalProcess(
            lattice=LatticeVP(temperature=self.lattice_temperature, cold_below=self.cold_below, density=density),
            frac_coords=WrappedVE(temperature=self.temperature, cold_below=self.cold_below),
            species=AbsorbingD3PM(temperature=self.species_temperature, remask=self.remask),
        )

    @property
    def by_batch(self) -> bool:
        """Whether a crystal depends on the others of its batch, as in the published code."""
        return self.grid == "published"

    @property
    def evaluations(self) -> int:
        """Network evaluations for one crystal."""
        return self.steps * (1 + self.corrector_steps)


_GRIDS = {"fast": fast_times, "uniform": uniform_times, "published": uniform_times}

SAMPLERS = {
    "fast": SamplerConfig(),
    "quick": SamplerConfig(steps=25),
    "predictor": SamplerConfig(steps=200, corrector_steps=0),
    "paper": SamplerConfig(
        grid="uniform", steps=1000, corrector_steps=1, temperature=1.0, lattice_temperature=1.0, remask=0.0
    ),
    "published": SamplerConfig(
        grid="published", steps=1000, corrector_steps=1, temperature=1.0, lattice_temperature=1.0, remask=0.0
    ),
}
"""Samplers by name: Druse's default, a quarter of it, its predictor alone, the paper's 1,000 + 1,000, the same as
the published code."""


def _by_name(sampler: Any) -> Any:
    """In settings a name stands for a whole sampler."""
    return named_sampler(sampler) if isinstance(sampler, str) else sampler


def named_sampler(name: str) -> SamplerConfig:
    """A sampler of ``SAMPLERS``.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}, it must be one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


@dataclass(frozen=True, kw_only=True)
class SymmetryRequest:
    """Which symmetry a crystal shall have; it is built into every step of the sampler.

    Attributes:
        space_group: number, 1 to 230; the relaxed crystal may come out in a group that contains it.
        symmetric: groups and Wyckoff positions as in known crystals, in place of whatever comes.
        wyckoff: positions of the group that are occupied, such as ``4a,8c`` or ``a,c``, in place of those of known
            crystals.

    Raises:
        ValueError: for a group that does not exist, or positions that make no sense.
    """

    space_group: int | None = None
    symmetric: bool = False
    wyckoff: str | None = None

    def __post_init__(self):
        if self.space_group is not None and not 1 <= self.space_group <= 230:
            raise ValueError(f"there is no space group {self.space_group}: give a number from 1 to 230")
        if self.wyckoff is not None:
            parse_wyckoff(self.wyckoff)
            if self.space_group is None:
                raise ValueError(
                    f"Wyckoff positions {self.wyckoff} were given and no space group: name theirs, such as "
                    "--space-group 225"
                )

    @property
    def restricts(self) -> bool:
        """Whether anything was asked for."""
        return self != SymmetryRequest()


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """One run of the generator.

    Attributes:
        num: crystals to draw.
        seed: of all random numbers.
        num_atoms: fewest and most atoms in a cell; None: as in the training data.
        composition: elements and their numbers.
        symmetry: space group.
        seed_structure: a structure to start from.
        properties: what they shall be.
        steering: what is rewarded on the way.
        sampler: how to draw; in YAML also a name of ``SAMPLERS``.
        batch_pairs: a batch holds as many crystals as keep ``crystals x (largest number of atoms)^2`` below this; it
            decides speed and memory, and the result only of the published sampler (``SamplerConfig.by_batch``).
        mixed_precision: multiply the network's matrices in bfloat16, which needs hardware that has such products.
    """

    num: int = 32
    seed: int = 0
    num_atoms: tuple[int, int] | None = None
    composition: CompositionRequest = field(default_factory=CompositionRequest)
    symmetry: SymmetryRequest = field(default_factory=SymmetryRequest)
    seed_structure: SeedRequest = field(default_factory=SeedRequest)
    properties: PropertyRequest = field(default_factory=PropertyRequest)
    steering: SteeringRequest = field(default_factory=SteeringRequest)
    sampler: Annotated[SamplerConfig, BeforeValidator(_by_name)] = SAMPLERS["fast"]
    batch_pairs: int = 12000
    mixed_precision: bool = False

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"{self.num} crystals were asked for: ask for at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}, it must lie between 0 and 2**63 - 1")
        if self.batch_pairs < 1:
            raise ValueError(f"batch_pairs is {self.batch_pairs}, it must be positive")
        if self.num_atoms is not None and self.num_atoms[0] > self.num_atoms[1]:
            low, high = self.num_atoms
            text = f"{low}-{high}"
            raise ValueError(f"number of atoms is {text!r}: the first number must not be larger than the second")


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
    sampler: str | None = None,
    seed_structure: Path | None = None,
    targets: Sequence[str] = (),
    adapters: Sequence[Path] = (),
    guidance_interval: str | None = None,
    steer: str | None = None,
    steering_strength: float | None = None,
    mixed_precision: bool | None = None,
    **changes: str | float | bool | None,
) -> GenerateConfig:
    """The settings with those replaced that were given (not None) on the command line.

    Args:
        config: the settings.
        num: how many crystals.
        seed: of all random numbers.
        num_atoms: such as ``8`` or ``4-12``.
        sampler: a name of ``SAMPLERS``.
        seed_structure: file of a structure to start from.
        targets: of properties, such as ``dft_band_gap=1..2``; they take the place of those of the settings.
        adapters: files; they take the place of those of the settings.
        guidance_interval: such as ``0.1-0.8``.
        steer: reward to steer by.
        steering_strength: how much it weighs.
        mixed_precision: products in bfloat16.
        changes: single fields of the composition, of the symmetry, of what is done to that structure, or of the
            sampler. Elements, a chemical system or a formula take the place of whichever of these the settings have.

    Raises:
        ValueError: names the word that makes no sense.
    """
    chosen = config.sampler if sampler is None else named_sampler(sampler)

    def those_of(section: Any) -> dict[str, Any]:
        return {f.name: changes[f.name] for f in fields(section) if changes.get(f.name) is not None}

    composition = those_of(config.composition)
    if composition.keys() & _ALTERNATIVES:
        composition = dict.fromkeys(_ALTERNATIVES) | composition
    seed_request = those_of(config.seed_structure) | ({} if seed_structure is None else {"structure": seed_structure})
    properties = those_of(config.properties)
    properties |= {"targets": tuple(targets)} if targets else {}
    properties |= {"adapters": tuple(adapters)} if adapters else {}
    properties |= {"interval": _interval(guidance_interval)} if guidance_interval is not None else {}
    if {"guidance", "interval"} & properties.keys() and not (targets or config.properties.targets):
        raise ValueError("a guidance was given and no property: name one, such as --property space_group=225")
    steering = {"strength": steering_strength, **{name: changes.get(name) for name in ("particles", "gradient_below")}}
    if steer is None and config.steering.reward is None and any(value is not None for value in steering.values()):
        raise ValueError("settings of steering were given and nothing to steer by: give a reward (--steer)")
    return override(
        config,
        num=num,
        seed=seed,
        num_atoms=None if num_atoms is None else parse_num_atoms(num_atoms),
        mixed_precision=mixed_precision,
        composition=replace(config.composition, **composition),
        symmetry=replace(config.symmetry, **those_of(config.symmetry)),
        seed_structure=replace(config.seed_structure, **seed_request),
        properties=replace(config.properties, **properties),
        steering=override(config.steering, reward=steer, **steering),
        sampler=replace(chosen, **those_of(chosen)),
    )


def _interval(text: str) -> tuple[float, float]:
    first, _, last = text.partition("-")
    try:
        return float(first), float(last)
    except ValueError:
        raise ValueError(f"interval of guidance is {text!r}: write two times, such as 0.1-0.8") from None


_ALTERNATIVES = {"elements", "chemical_system", "formula"}
