"""``druse``: generate, relax, evaluate, discover, info, train and reference as one command line."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from druse_evaluate.cli import Device, Phonons, PotentialName, Rattle
from druse_evaluate.cli import app as evaluate_app
from druse_generate.cli import app as generate_app
from druse_generate.options import AsJson, Model, Quiet, Settings, asks_for_crystals
from druse_train.cli import app as train_app

from druse.reference_cli import reference_app

_REFERENCE = (
    "embedded (DFT's hull, the default), embedded-POTENTIAL (the potential's own energies), or the path of your own."
)

app = typer.Typer(
    name="druse",
    help="Grow inorganic crystals out of noise, and say which of them are worth making.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.registered_commands += generate_app.registered_commands + evaluate_app.registered_commands
app.add_typer(train_app, name="train")
app.add_typer(reference_app, name="reference")


@app.command()
@asks_for_crystals
def discover(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)],
    num: Annotated[
        int | None, typer.Option(help="How many crystals to relax and judge; 32 by default.", show_default=False)
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(
            help="Crystals drawn for each one that is relaxed, 4 by default; 1: no screening.", show_default=False
        ),
    ] = None,
    asked: dict[str, Any],
    model: Model = None,
    reference: Annotated[str | None, typer.Option(help=_REFERENCE, show_default=False)] = None,
    potential: PotentialName = None,
    device: Device = None,
    rattle: Rattle = False,
    phonons: Phonons = False,
    config: Settings = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find new crystals: generate, screen, relax, judge, and write everything into one folder.

    Leaves crystals.extxyz, cifs.zip, crystals.parquet, metrics.json, report.html and manifest.json. Ctrl-C keeps what
    is finished; the same command continues.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse discover"):
        from druse_crystal.manifest import Manifest
        from druse_crystal.settings import override, read_settings
        from druse_evaluate import config as evaluate_config
        from druse_evaluate.metrics_table import print_metrics
        from druse_generate import config as generate_config
        from druse_generate.find_model import find_model

        from druse.config import DiscoverConfig
        from druse.discovering import discover as run

        settings = override(read_settings(config, DiscoverConfig), pool=pool)
        generation = generate_config.with_options(settings.generate, num=num, **asked)
        evaluation = evaluate_config.with_options(
            settings.evaluate,
            reference=reference,
            potential=potential,
            device=device,
            rattle=rattle or None,
            phonons=phonons or None,
        )
        with Display(quiet=quiet) as display:
            assessment = run(
                out,
                num=generation.num,
                pool=settings.pool,
                model=find_model(model, display=display),
                generation=replace(generation, num=generation.num * settings.pool),
                evaluation=evaluation,
                display=display,
                manifest=Manifest(),
            )
        print_metrics(assessment, as_json=as_json)
        if not as_json:
            display.say(f"{out / 'report.html'}")
