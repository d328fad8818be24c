"""Options of the commands that draw crystals: each is declared here, and nowhere else."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Checkpoint folder, or the name of a published one, such as mattergen_base; without one, the model that "
        "ships.",
    ),
]
NumAtoms = Annotated[
    str | None, typer.Option("--num-atoms", help="Atoms in a cell: 8, or 4-12; by default as in the training data.")
]
Elements = Annotated[
    str | None, typer.Option("--elements", help="Only these may occur, such as Li-Fe-O.", show_default=False)
]
ChemicalSystem = Annotated[
    str | None,
    typer.Option("--chemical-system", help="All of these occur and no others, such as Li-Fe-O.", show_default=False),
]
Formula = Annotated[
    str | None, typer.Option("--formula", help="Whole formula units of this, such as Li2FeO4.", show_default=False)
]
Include = Annotated[
    str | None, typer.Option("--include", help="All of these occur, others may, such as Li-O.", show_default=False)
]
Exclude = Annotated[
    str | None, typer.Option("--exclude", help="None of these occurs, such as Pb-Cd.", show_default=False)
]
Counts = Annotated[
    str | None,
    typer.Option("--counts", help="Atoms in the cell, such as Fe:2,O:4-8,Li:1- (one or more).", show_default=False),
]
SpaceGroupNumber = Annotated[
    int | None, typer.Option("--space-group", help="1 to 230, built into every step.", show_default=False)
]
Symmetric = Annotated[
    bool | None,
    typer.Option("--symmetric", help="Space groups and Wyckoff positions as in known crystals.", show_default=False),
]
Wyckoff = Annotated[
    str | None,
    typer.Option(
        "--wyckoff", help="Positions of the space group that are occupied, such as 4a,8c or a,c.", show_default=False
    ),
]
SeedStructure = Annotated[
    Path | None,
    typer.Option("--seed-structure", help="A structure to start from (CIF, POSCAR, ...).", show_default=False),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="Of that structure, with commas: lattice, coordinates, species, species:O, sites:0-3.",
        show_default=False,
    ),
]
Substitute = Annotated[
    str | None,
    typer.Option("--substitute", help="Fe:2:Mn-Co: Mn or Co on two Fe sites of that structure.", show_default=False),
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="Variations of that structure: 0.1 near, 1 any.", show_default=False),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        help="dft_band_gap=1..2, hhi_score<=1500, space_group=225, ...; can be repeated; `info` lists what is known.",
        show_default=False,
    ),
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option("--adapter", help="Adapter that knows such a property; can be repeated.", show_default=False),
]
Guidance = Annotated[
    float | None,
    typer.Option(help="How hard properties pull: 1 as learnt, 2 by default.", show_default=False),
]
GuidanceInterval = Annotated[
    str | None,
    typer.Option(
        "--guidance-interval",
        help="Times between which guidance acts, 1 elsewhere, such as 0.1-0.8; at 1 there is noise, at 0 a crystal.",
        show_default=False,
    ),
]
Steer = Annotated[
    str | None,
    typer.Option(
        "--steer",
        help="Reward to steer by: FILE.py:FUNCTION, of a list of crystals, larger is better.",
        show_default=False,
    ),
]
Particles = Annotated[
    int | None,
    typer.Option("--particles", help="Drawn for each crystal in steering, 4 by default.", show_default=False),
]
SteeringStrength = Annotated[
    float | None,
    typer.Option("--steering-strength", help="How much a reward weighs, 10 by default.", show_default=False),
]
GradientBelow = Annotated[
    float | None,
    typer.Option(
        "--gradient-below",
        help="Time below which the gradient of the reward acts too, if it has one, such as 0.1; never by default.",
        show_default=False,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same crystals; 0 by default.", show_default=False)]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        help="fast (default, 400 evaluations), quick (100), predictor (200), paper (1,000 + 1,000), "
        "or published (the same, with the published code's peculiarities).",
        show_default=False,
    ),
]
Steps = Annotated[int | None, typer.Option(help="Steps of the sampler, instead of its own number.", show_default=False)]
Correctors = Annotated[
    int | None, typer.Option("--corrector-steps", help="Langevin steps before each step.", show_default=False)
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Of coordinates; below 1: lower energies, more symmetry, less diversity.", show_default=False),
]
LatticeTemperature = Annotated[
    float | None,
    typer.Option("--lattice-temperature", help="Of the lattice; below 1: more right angles.", show_default=False),
]
SpeciesTemperature = Annotated[
    float | None,
    typer.Option("--species-temperature", help="Below 1: likelier elements, less diversity.", show_default=False),
]
MixedPrecision = Annotated[
    bool | None,
    typer.Option(
        "--mixed-precision", help="Multiply matrices in bfloat16, where the hardware can: faster.", show_default=False
    ),
]
Settings = Annotated[Path | None, typer.Option("--config", help="Settings in YAML; options win over it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def _request(
    *,
    seed: Seed = None,
    num_atoms: NumAtoms = None,
    elements: Elements = None,
    chemical_system: ChemicalSystem = None,
    formula: Formula = None,
    include: Include = None,
    exclude: Exclude = None,
    counts: Counts = None,
    space_group: SpaceGroupNumber = None,
    symmetric: Symmetric = None,
    wyckoff: Wyckoff = None,
    seed_structure: SeedStructure = None,
    keep: Keep = None,
    substitute: Substitute = None,
    strength: Strength = None,
    targets: Targets = None,
    adapters: Adapters = None,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    steer: Steer = None,
    particles: Particles = None,
    steering_strength: SteeringStrength = None,
    gradient_below: GradientBelow = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    corrector_steps: Correctors = None,
    temperature: Temperature = None,
    lattice_temperature: LatticeTemperature = None,
    species_temperature: SpeciesTemperature = None,
    mixed_precision: MixedPrecision = None,
) -> None:
    """What can be asked of crystals, by the names that ``config.with_options`` knows."""


def asks_for_crystals(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of ``_request`` in place of its parameter ``asked``, which gets those that were given.

    Args:
        command: all of whose parameters are keyword-only.
    """
    options = inspect.signature(_request).parameters
    merged: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        merged += options.values() if parameter.name == "asked" else [parameter]
    merged = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in merged]

    @wraps(command)
    def asking(**given: Any) -> None:
        asked = {name: value for name in options if (value := given.pop(name)) not in (None, [])}
        command(**given, asked=asked)

    asking.__signature__ = inspect.Signature(merged)  # ty: ignore[missing-attribute]
    asking.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
    return asking
