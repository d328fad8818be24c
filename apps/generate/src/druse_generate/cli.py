"""The commands ``generate`` and ``info``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="druse-generate",
    help="Generate crystals with a trained Druse model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
Seed = Annotated[int | None, typer.Option(help="Same seed, same crystals; 0 by default.", show_default=False)]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler", help="fast (default), predictor, or paper (1,000 + 1,000 evaluations).", show_default=False
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


@app.command("generate")
def generate_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)],
    num: Annotated[int | None, typer.Option(help="How many crystals; 32 by default.", show_default=False)] = None,
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
    steer: Steer = None,
    particles: Particles = None,
    steering_strength: SteeringStrength = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    corrector_steps: Correctors = None,
    temperature: Temperature = None,
    lattice_temperature: LatticeTemperature = None,
    species_temperature: SpeciesTemperature = None,
    mixed_precision: MixedPrecision = None,
    config: Settings = None,
    model: Model = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Generate crystals: crystals.extxyz, cifs.zip (symmetrised), manifest.json.

    They are as the model draws them; `druse relax` and `druse evaluate` go on from there. Ctrl-C keeps what is
    finished; the same command continues.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse generate"):
        from druse_crystal.manifest import Manifest
        from druse_crystal.settings import read_settings

        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model
        from druse_generate.running import draw_into, write_draws

        settings = with_options(
            read_settings(config, GenerateConfig),
            num=num,
            seed=seed,
            num_atoms=num_atoms,
            elements=elements,
            chemical_system=chemical_system,
            formula=formula,
            include=include,
            exclude=exclude,
            counts=counts,
            space_group=space_group,
            symmetric=symmetric,
            wyckoff=wyckoff,
            seed_structure=seed_structure,
            keep=keep,
            substitute=substitute,
            strength=strength,
            targets=targets or (),
            adapters=adapters or (),
            guidance=guidance,
            steer=steer,
            particles=particles,
            steering_strength=steering_strength,
            sampler=sampler,
            steps=steps,
            corrector_steps=corrector_steps,
            temperature=temperature,
            lattice_temperature=lattice_temperature,
            species_temperature=species_temperature,
            mixed_precision=mixed_precision,
        )
        manifest = Manifest()
        with Display(quiet=quiet) as display:
            folder = find_model(model, display=display)
            draws = draw_into(out, model=folder, config=settings, display=display, manifest=manifest, device=device)
            write_draws(out, draws, display=display, manifest=manifest)
        if as_json:
            typer.echo(json.dumps(manifest.as_dict(), indent=2))
        else:
            display.say(f"{manifest.results['crystals']} of {settings.num} crystals: {out / 'crystals.extxyz'}")


@app.command("import-checkpoint")
def import_checkpoint(
    source: Annotated[
        str,
        typer.Argument(
            help="A Lightning file of the published MatterGen code, its folder, or the name of a published model.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint folder to write.", show_default=False)],
    which: Annotated[str, typer.Option(help="Of a folder with several files: last or best.")] = "last",
    as_json: AsJson = False,
) -> None:
    """Turn a published MatterGen checkpoint into one of Druse: settings and safetensors, nothing that runs code."""
    from druse_crystal.console import user_errors

    with user_errors("druse import-checkpoint", when_stopped="Nothing was written."):
        from druse_scores import import_checkpoint as read
        from druse_scores import save_checkpoint

        if which not in ("last", "best"):
            raise ValueError(f"--which is {which!r}, it must be last or best")
        checkpoint = read(source, which=which)
        save_checkpoint(checkpoint, out)
    facts = {"model": str(out), "parameters": sum(p.numel() for p in checkpoint.network.parameters())}
    facts |= checkpoint.provenance
    typer.echo(json.dumps(facts) if as_json else f"{out}: {facts['parameters']:,} parameters")


@app.command()
def info(model: Model = None, adapters: Adapters = None, as_json: AsJson = False) -> None:
    """Show what a model is, what it was trained on, and what can be asked of it."""
    from druse_crystal.console import user_errors

    with user_errors("druse info"):
        from ase.data import chemical_symbols
        from druse_crystal.console import Display
        from druse_guidance import load_adapter, own_properties
        from druse_scores import load_checkpoint

        from druse_generate.config import SAMPLERS
        from druse_generate.find_model import find_model
        from druse_generate.property_request import adapter_files

        with Display(quiet=as_json) as display:
            folder = find_model(model, display=display)
        checkpoint = load_checkpoint(folder)
        known = {name: described.describe() for name, described in own_properties(checkpoint.network).items()}
        for path in [*adapter_files(folder), *(adapters or ())]:
            for name, described in load_adapter(path, base=checkpoint.network).adapter.properties.items():
                known[f"{name} ({path.name})"] = described.describe()
        facts = {
            "model": str(folder) if model else "the model that ships with druse-generate",
            "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
            "network": asdict(checkpoint.network.config),
            "num_atoms": [min(checkpoint.num_atoms), max(checkpoint.num_atoms)],
            "training_crystals": sum(checkpoint.num_atoms.values()),
            "elements": [chemical_symbols[z] for z in checkpoint.elements],
            "species": "given: give a formula or exact counts" if checkpoint.given_species else "drawn",
            "properties": known or "none: add an adapter (`druse-train finetune`)",
            "samplers": {name: f"{s.steps} steps, {s.evaluations} evaluations" for name, s in SAMPLERS.items()},
            "provenance": checkpoint.provenance,
        }
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in facts.items():
            if isinstance(value, dict):
                text = "\n".join(f"{key}: {item}" for key, item in value.items())
            else:
                text = " ".join(map(str, value)) if isinstance(value, list) else f"{value}"
            table.add_row(name.replace("_", " "), text)
        Console().print(table, highlight=False)
