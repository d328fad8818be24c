"""``druse``: generate, relax, evaluate, discover, info and train as one command line."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from druse_evaluate.cli import app as evaluate_app
from druse_generate.cli import AsJson, Correctors, Model, NumAtoms, Quiet, SamplerName, Seed, Steps, Temperature
from druse_generate.cli import app as generate_app
from druse_train.cli import app as train_app

_REFERENCE = "embedded (DFT's hull), embedded-POTENTIAL (the potential's own energies), or the path of your own."

app = typer.Typer(
    name="druse",
    help="Grow inorganic crystals out of noise, and say which of them are worth making.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.registered_commands += generate_app.registered_commands + evaluate_app.registered_commands
app.add_typer(train_app, name="train")


@app.command()
def discover(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)],
    num: Annotated[int, typer.Option(help="How many crystals to relax and judge.")] = 32,
    seed: Seed = 0,
    pool: Annotated[int, typer.Option(help="Crystals drawn for each one that is relaxed; 1: no screening.")] = 4,
    num_atoms: NumAtoms = None,
    sampler: SamplerName = "fast",
    steps: Steps = None,
    corrector_steps: Correctors = None,
    species_temperature: Temperature = None,
    model: Model = None,
    reference: Annotated[str, typer.Option(help=_REFERENCE)] = "embedded",
    potential: Annotated[str, typer.Option(help="sevennet-0, sevennet-l3i5 or chgnet.")] = "sevennet-0",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find new crystals: generate, screen, relax, judge, and write everything into one folder.

    Leaves crystals.extxyz, cifs.zip, crystals.parquet, metrics.json, report.html and manifest.json. Ctrl-C keeps what
    is finished; the same command continues.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse discover"):
        if num < 1:
            raise ValueError(f"{num} crystals were asked for: ask for at least 1")
        if pool < 1:
            raise ValueError(f"--pool is {pool}: it must be at least 1")
        from druse_crystal.manifest import Manifest
        from druse_evaluate.config import EvaluationConfig, RelaxationConfig
        from druse_evaluate.metrics_table import print_metrics
        from druse_generate.config import MODEL, make_config

        from druse.discovering import discover as run

        generation = make_config(
            num=num,
            seed=seed,
            num_atoms=num_atoms,
            sampler=sampler,
            steps=steps,
            corrector_steps=corrector_steps,
            species_temperature=species_temperature,
        )
        evaluation = EvaluationConfig(reference=reference, relaxation=RelaxationConfig(potential=potential))
        with Display(quiet=quiet) as display:
            assessment = run(
                out,
                num=num,
                pool=pool,
                model=model or MODEL,
                generation=replace(generation, num=num * pool),
                evaluation=evaluation,
                display=display,
                manifest=Manifest(),
            )
        print_metrics(assessment, as_json=as_json)
        if not as_json:
            display.say(f"{out / 'report.html'}")
