"""The commands ``generate`` and ``info``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from druse_generate.options import Adapters, AsJson, Model, Quiet, Settings, asks_for_crystals

app = typer.Typer(
    name="druse-generate",
    help="Generate crystals with a trained Druse model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("generate")
@asks_for_crystals
def generate_command(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)],
    num: Annotated[int | None, typer.Option(help="How many crystals; 32 by default.", show_default=False)] = None,
    asked: dict[str, Any],
    config: Settings = None,
    model: Model = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
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

        settings = with_options(read_settings(config, GenerateConfig), num=num, **asked)
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
    data: Annotated[
        Path | None,
        typer.Option(
            help="What it was trained on, for sizes and elements of crystals: a Parquet file of Druse or a cache "
            "directory; Alex-MP-20 by default.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a published MatterGen checkpoint into one of Druse: settings and safetensors, nothing that runs code."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse import-checkpoint", when_stopped="Nothing was written."):
        from druse_crystal.files import new_folder
        from druse_scores import import_checkpoint as read
        from druse_scores import save_checkpoint
        from druse_scores.importing import ASSUMED_SETTINGS

        if which not in ("last", "best"):
            raise ValueError(f"--which is {which!r}, it must be last or best")
        with new_folder(out) as temporary:
            checkpoint = read(source, which=which, data=data)
            save_checkpoint(checkpoint, temporary)
    facts = {"model": str(out), "parameters": sum(p.numel() for p in checkpoint.network.parameters())}
    facts |= checkpoint.provenance
    if facts.get("settings") == ASSUMED_SETTINGS:
        with Display(quiet=as_json) as display:
            display.warn(
                "there were no settings in the file or in a config.yaml beside it: cut-off, neighbours, noise and "
                "whether species are drawn are taken from the published models; if it was trained otherwise, such as "
                "for structure prediction, import it again with its config.yaml beside it"
            )
    note = f" ({facts['note']})" if "note" in facts else ""
    text = f"{out}: {facts['parameters']:,} parameters, from {facts['from']}{note}"
    typer.echo(json.dumps(facts) if as_json else text)


@app.command()
def info(
    asked: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", help="The same as --model.", show_default=False),
    ] = None,
    model: Model = None,
    adapters: Adapters = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is, what it was trained on, and what can be asked of it."""
    from druse_crystal.console import user_errors

    with user_errors("druse info"):
        from ase.data import chemical_symbols
        from druse_crystal.console import Display
        from druse_guidance import Property, load_adapter, own_properties
        from druse_scores import GemNet, load_checkpoint
        from druse_scores.gemnet.lightning_file import PUBLISHED

        from druse_generate.config import SAMPLERS
        from druse_generate.find_model import find_model
        from druse_generate.property_request import adapter_files

        if asked is not None and model is not None:
            raise ValueError(f"two models were given, {asked} and --model {model}: leave one of them out")
        model = model or asked
        with Display(quiet=as_json) as display:
            folder = find_model(model, display=display)
        checkpoint = load_checkpoint(folder)
        known: list[tuple[Property, str]] = [(own, "") for own in own_properties(checkpoint.network).values()]
        for path in [*adapter_files(folder), *(adapters or ())]:
            learnt = load_adapter(path, base=checkpoint.network).adapter.properties
            where = str(path) if path in (adapters or ()) else path.name
            known += [(described, where) for described in learnt.values()]
        published = isinstance(checkpoint.network, GemNet)
        remedy = f"take one of {', '.join(PUBLISHED)}" if published else "add an adapter (`druse-train finetune`)"
        sizes = {} if "assumed" in checkpoint.provenance else {"training_crystals": sum(checkpoint.num_atoms.values())}
        facts = {
            "model": str(folder) if model else "the model that ships with druse-generate",
            "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
            "network": asdict(checkpoint.network.config),
            "num_atoms": [min(checkpoint.num_atoms), max(checkpoint.num_atoms)],
            **sizes,
            "elements": [chemical_symbols[z] for z in checkpoint.elements],
            "species": "given: give a formula or exact counts" if checkpoint.given_species else "drawn",
            "properties": [described.as_dict() | {"adapter": where} for described, where in known],
            "samplers": {name: f"{s.steps} steps, {s.evaluations} evaluations" for name, s in SAMPLERS.items()},
            "provenance": checkpoint.provenance,
        }
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
            return
        facts["properties"] = {
            f"{described.name} ({where})" if where else described.name: described.describe()
            for described, where in known
        } or f"none: {remedy}"
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
