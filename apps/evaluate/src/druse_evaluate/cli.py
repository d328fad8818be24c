"""The commands `relax` and `evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from druse_crystal.console import Display, user_errors

from druse_evaluate.metrics_table import print_metrics

app = typer.Typer(
    name="druse-evaluate",
    help="Relax and judge crystals from anybody.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Inputs = Annotated[
    list[Path],
    typer.Argument(help="CIF, POSCAR, extxyz, JSON or Parquet files, zips or folders of them", show_default=False),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)]
Settings = Annotated[Path | None, typer.Option("--config", help="Settings in YAML; options win over it.")]
PotentialName = Annotated[
    str | None, typer.Option("--potential", help="sevennet-0 (default), sevennet-l3i5 or chgnet.", show_default=False)
]
Fmax = Annotated[float | None, typer.Option(help="Largest force left, eV/Å; 0.05 by default.", show_default=False)]
MaxSteps = Annotated[int | None, typer.Option(help="Steps for each crystal; 500 by default.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="cpu (default) or cuda.", show_default=False)]
Rattle = Annotated[bool, typer.Option("--rattle", help="Shake relaxed crystals and relax again.")]
Phonons = Annotated[
    bool, typer.Option("--phonons", help="Look for imaginary modes of relaxed crystals (needs phonopy).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@app.command()
def relax(
    inputs: Inputs,
    out: Out,
    config: Settings = None,
    potential: PotentialName = None,
    fmax: Fmax = None,
    max_steps: MaxSteps = None,
    device: Device = None,
    rattle: Rattle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Relax crystals: relaxed.extxyz, relaxed.zip (CIF), relaxations.parquet, manifest.json.

    Ctrl-C keeps what is finished; the same command continues.
    """
    with user_errors("druse relax"):
        from druse_crystal.manifest import Manifest
        from druse_crystal.settings import read_settings

        from druse_evaluate.config import EvaluationConfig, with_options
        from druse_evaluate.judging import read_inputs
        from druse_evaluate.relaxing import relax_and_write

        settings = with_options(
            read_settings(config, EvaluationConfig),
            reference=None,
            potential=potential,
            fmax=fmax,
            max_steps=max_steps,
            device=device,
            rattle=rattle or None,
        )
        manifest = Manifest()
        with Display(quiet=quiet) as display:
            candidates = read_inputs(inputs, display=display)
            for path in (*inputs, *([config] if config else [])):
                manifest.add_input(path)
            relax_and_write(candidates, out=out, config=settings.relaxation, display=display, manifest=manifest)
        if as_json:
            typer.echo(json.dumps(manifest.as_dict(), indent=2))
        else:
            display.say(f"{_in_words(manifest.results['status'])}: {out}")


@app.command()
def evaluate(
    inputs: Inputs,
    out: Out,
    reference: Annotated[
        str | None,
        typer.Option(help="embedded (default), embedded-POTENTIAL (its own energies), or a path.", show_default=False),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option(help="Crystals that the generator learnt from, for novelty against them.", show_default=False),
    ] = None,
    requested: Annotated[
        int | None,
        typer.Option(help="How many crystals were asked for, if fewer exist; missing ones count.", show_default=False),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="A further potential that judges on its own hull; may be given twice.", show_default=False),
    ] = None,
    no_relax: Annotated[bool, typer.Option("--no-relax", help="Judge the crystals as they are.")] = False,
    config: Settings = None,
    potential: PotentialName = None,
    fmax: Fmax = None,
    max_steps: MaxSteps = None,
    device: Device = None,
    rattle: Rattle = False,
    phonons: Phonons = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Relax and judge crystals: crystals.parquet, metrics.json, report.html, manifest.json.

    Every crystal that was asked for has a row, also one that cannot be read. Ctrl-C keeps what is finished; the same
    command continues.
    """
    with user_errors("druse evaluate"):
        from druse_crystal.manifest import Manifest
        from druse_crystal.settings import read_settings

        from druse_evaluate.config import EvaluationConfig, with_options
        from druse_evaluate.judging import judge as run
        from druse_evaluate.judging import pad, read_inputs

        settings = with_options(
            read_settings(config, EvaluationConfig),
            reference=reference,
            training=training,
            judges=tuple(judge) if judge else None,
            potential=potential,
            fmax=fmax,
            max_steps=0 if no_relax else max_steps,
            device=device,
            rattle=rattle or None,
            phonons=phonons or None,
        )
        manifest = Manifest()
        with Display(quiet=quiet) as display:
            candidates = pad(read_inputs(inputs, display=display, requested=requested), requested)
            for path in (*inputs, *([config] if config else [])):
                manifest.add_input(path)
            assessment = run(candidates, out=out, config=settings, display=display, manifest=manifest)
        print_metrics(assessment, as_json=as_json)
        if not as_json:
            display.say(f"{_in_words(manifest.results['status'])}: {out / 'report.html'}")


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items())
