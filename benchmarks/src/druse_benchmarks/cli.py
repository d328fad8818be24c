"""``druse-bench``: one command a question."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from druse_benchmarks.equal_cost_cli import equal_cost_app
from druse_benchmarks.options import (
    EMBEDDED,
    Device,
    Model,
    NumAtoms,
    Out,
    Parents,
    PotentialName,
    Quiet,
    Reference,
    SamplerName,
    Seed,
    Smoke,
    Steps,
    Work,
    numbers,
    out_folder,
    read_dataset,
    words,
    work_folder,
)
from druse_benchmarks.requests_cli import requests_app

app = typer.Typer(
    name="druse-bench",
    help="Benchmarks of Druse: each command answers one question and leaves JSON, a table and a picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.registered_commands += equal_cost_app.registered_commands + requests_app.registered_commands


@app.command()
def throughput(
    threads: Annotated[str, typer.Option(help="CPU threads; several numbers with commas.")] = "1",
    repeats: Annotated[int, typer.Option(help="Timed passes; the median counts.")] = 5,
    batches: Annotated[int, typer.Option(help="Training batches in a pass.")] = 24,
    seed: Seed = 0,
    model: Model = None,
    device: Device = "cpu",
    out: Out = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How many crystals a second does the network learn from, and how many does it score?"""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench throughput"):
        from druse_crystal.dataset import load_embedded
        from druse_crystal.manifest import Manifest
        from druse_generate.find_model import find_model

        from druse_benchmarks.throughput import ThroughputConfig
        from druse_benchmarks.throughput import throughput as run

        if smoke:
            repeats, batches = 1, 2
        config = ThroughputConfig(
            threads=numbers(threads, option="--threads"), repeats=repeats, batches=batches, seed=seed, device=device
        )
        with Display(quiet=quiet) as display:
            folder = run(
                config=config,
                model=find_model(model, display=display),
                dataset=load_embedded(),
                out=out_folder(out, smoke),
                display=display,
                manifest=Manifest(),
            )
        typer.echo(folder / "table.md")


@app.command("published-network")
def published_network(
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(help="Evaluations of each batch; their mean counts.")] = 5,
    crystals: Annotated[str, typer.Option(help="Sizes of batches, with commas.")] = "1,4,16",
    seed: Seed = 0,
    out: Out = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How long does a network of the published size take, beside the published code and its own floor?"""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench published-network"):
        from druse_crystal.dataset import load_embedded
        from druse_crystal.manifest import Manifest

        from druse_benchmarks.published_network import SMALL, PublishedNetworkConfig
        from druse_benchmarks.published_network import published_network as run

        sizes = numbers("1,2" if smoke else crystals, option="--crystals")
        if min(sizes) < 1 or repeats < 1 or threads < 1:
            raise ValueError("crystals, repeats and threads must be at least 1")
        config = PublishedNetworkConfig(crystals=sizes, repeats=1 if smoke else repeats, threads=threads, seed=seed)
        config = replace(config, network=SMALL) if smoke else config
        with Display(quiet=quiet) as display:
            folder = run(config, load_embedded(), out=out_folder(out, smoke), display=display, manifest=Manifest())
        typer.echo(folder / "table.md")


@app.command()
def unconditional(
    num: Annotated[int, typer.Option(help="Crystals asked for, of each method.")] = 1000,
    seed: Seed = 0,
    methods: Annotated[
        str,
        typer.Option(
            help="With commas: druse, druse:FOLDER, substitution, iterated-substitution, ion-exchange, pyxtal, airss, "
            "charge-balanced, resampling, known, files:PATH."
        ),
    ] = "druse,substitution,pyxtal,known",
    parents: Parents = "embedded",
    reference: Reference = "embedded",
    training: Annotated[
        str | None,
        typer.Option(help="What the model learnt from, for novelty against it, of all methods.", show_default=False),
    ] = None,
    potential: PotentialName = "sevennet-0",
    sampler: SamplerName = "fast",
    steps: Steps = None,
    num_atoms: NumAtoms = None,
    model: Model = None,
    device: Device = "cpu",
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How good are crystals that nobody asked anything of? All metrics of Druse beside other methods.

    Ctrl-C keeps what is finished; the same command continues. Methods can be run one by one: the table has all that
    are there.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench unconditional"):
        from druse_crystal.dataset import load_embedded
        from druse_evaluate.config import EvaluationConfig, RelaxationConfig
        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model

        from druse_benchmarks.sources import make_sources
        from druse_benchmarks.unconditional import unconditional as run

        max_steps = 500
        if smoke:
            num, steps, num_atoms, max_steps = 3, 20, num_atoms or "2-4", 10
        generation = with_options(
            GenerateConfig(), num=num, seed=seed, num_atoms=num_atoms, sampler=sampler, steps=steps
        )
        known, known_as = read_dataset(parents)
        sources = make_sources(
            words(methods),
            parents=known,
            parents_hash=known_as,
            held_out=load_embedded(),
            sampler=generation.sampler,
            model=find_model(model, display=Display(quiet=quiet)),
            num_atoms=generation.num_atoms,
        )
        relaxation = RelaxationConfig(potential=potential, max_steps=max_steps, device=device)
        with Display(quiet=quiet) as display:
            folder = run(
                sources,
                num=num,
                seed=seed,
                evaluation=EvaluationConfig(reference=reference, training=training, relaxation=relaxation),
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, "unconditional"),
                display=display,
            )
        typer.echo(folder / "table.md")


@app.command()
def steps(
    samplers: Annotated[
        str | None,
        typer.Option(
            help="With commas: grid:steps+correctors@temperature, such as fast:100+1@0.25 or published:99+1/bfloat16.",
            show_default=False,
        ),
    ] = None,
    num: Annotated[int, typer.Option(help="Crystals of each sampler.")] = 128,
    seed: Seed = 0,
    num_atoms: NumAtoms = None,
    relax: Annotated[bool, typer.Option("--relax", help="Also relax and judge them in full.")] = False,
    reference: Reference = "embedded",
    potential: PotentialName = "sevennet-0",
    model: Model = None,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How good are the crystals for how many evaluations of the network?

    Ctrl-C keeps every sampler that is finished; the same command continues.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench steps"):
        from druse_crystal.device import find_device
        from druse_crystal.manifest import Manifest
        from druse_evaluate.config import EvaluationConfig, RelaxationConfig
        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model
        from druse_scores import has_bfloat16

        from druse_benchmarks.steps import ALSO_MIXED, DEFAULT, parse_samplers
        from druse_benchmarks.steps import steps as run

        if smoke:
            num, num_atoms, samplers = 3, num_atoms or "2-4", samplers or "fast:10+0,fast:10+1"
        chosen = parse_samplers(samplers or DEFAULT + (ALSO_MIXED if has_bfloat16(find_device("cpu")) else ""))
        with Display(quiet=quiet) as display:
            folder = run(
                chosen,
                generation=with_options(GenerateConfig(), num=num, seed=seed, num_atoms=num_atoms),
                model=find_model(model, display=display),
                evaluation=EvaluationConfig(
                    reference=reference,
                    relaxation=RelaxationConfig(potential=potential, max_steps=10 if smoke else 500),
                ),
                relax=relax,
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, "steps"),
                display=display,
                manifest=Manifest(),
            )
        typer.echo(folder / "table.md")


@app.command()
def matching(
    num: Annotated[int, typer.Option(help="Crystals that are asked about.")] = 1000,
    references: Annotated[str, typer.Option(help="Numbers of known crystals; several with commas.")] = "5000",
    dataset: Annotated[str, typer.Option(help="Dataset of the known crystals; embedded.")] = "embedded",
    seed: Seed = 0,
    out: Out = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How long does it take to tell what is new and what repeats itself? Beside pymatgen on the same crystals."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench matching"):
        from druse_crystal.manifest import Manifest

        from druse_benchmarks.matching import MatchingConfig
        from druse_benchmarks.matching import matching as run

        if smoke:
            num, references = 12, "40,80"
        config = MatchingConfig(num=num, references=numbers(references, option="--references"), seed=seed)
        manifest = Manifest()
        known, known_as = read_dataset(dataset)
        if dataset != EMBEDDED:
            manifest.inputs[dataset] = known_as
        with Display(quiet=quiet) as display:
            folder = run(
                config=config,
                dataset=known,
                out=out_folder(out, smoke),
                display=display,
                manifest=manifest,
            )
        typer.echo(folder / "table.md")


@app.command()
def hull(
    num: Annotated[int, typer.Option(help="Formulas that are asked about.")] = 1000,
    num_elements: Annotated[
        int | None, typer.Option(help="Only phases of the so many commonest elements; all.", show_default=False)
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How long does a distance to the hull take? Beside pymatgen's PatchedPhaseDiagram on the same phases."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench hull"):
        from druse_crystal.manifest import Manifest
        from druse_energetics.digests import digests
        from druse_energetics.reference import load_hull

        from druse_benchmarks.hull import HullConfig
        from druse_benchmarks.hull import hull as run

        if smoke:
            num, num_elements = 20, 6
        config = HullConfig(num=num, num_elements=num_elements, seed=seed)
        with Display(quiet=quiet) as display:
            folder = run(
                config=config,
                phases=load_hull(),
                out=out_folder(out, smoke),
                display=display,
                manifest=Manifest(inputs=digests("hull.parquet")),
            )
        typer.echo(folder / "table.md")


@app.command()
def analysis(
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="Finished folders of `druse evaluate`, as NAME=FOLDER or FOLDER.", show_default=False),
    ] = None,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """What do the crystals of a method look like? Distributions of several finished sets side by side."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench analysis"):
        from druse_crystal.manifest import Manifest

        from druse_benchmarks.analysis import analysis as run
        from druse_benchmarks.analysis import small_sets

        named = {}
        for text in tables or ():
            name, equals, path = text.rpartition("=")
            named[name if equals else Path(path).name] = Path(path)
        if len(named) < len(tables or ()):
            raise ValueError("two sets have one name: give names of your own, as NAME=FOLDER")
        with Display(quiet=quiet) as display:
            named = named or (small_sets(work_folder(work, smoke, "analysis"), display) if smoke else {})
            folder = run(named, out=out_folder(out, smoke), display=display, manifest=Manifest())
        typer.echo(folder / "table.md")


@app.command()
def calibration(
    table: Annotated[
        Path | None, typer.Argument(help="Parquet with structures and their DFT energy above hull.", show_default=False)
    ] = None,
    label: Annotated[str, typer.Option(help="Column with that energy, eV/atom.")] = "energy_above_hull",
    group: Annotated[str, typer.Option(help="Column by which is left out, such as the generator.")] = "generator",
    judges: Annotated[
        str, typer.Option(help="With commas; the first one relaxes, the others go on from there.")
    ] = "sevennet-0,sevennet-l3i5,chgnet",
    limit: Annotated[int | None, typer.Option(help="So many structures, at random; all.", show_default=False)] = None,
    limit_of_others: Annotated[
        int | None, typer.Option(help="So many of these for the other judges; all.", show_default=False)
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How far is each judge from DFT, and how far does what is learnt from the difference carry over?

    Ctrl-C keeps what is finished; the same command continues.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench calibration"):
        from druse_crystal.manifest import Manifest

        from druse_benchmarks.calibration import CalibrationConfig, small_table
        from druse_benchmarks.calibration import calibration as run

        finished = work_folder(work, smoke, "calibration")
        if smoke:
            table, group, judges = small_table(finished / "table.parquet"), "split", "sevennet-0"
        if table is None:
            raise ValueError("there is nothing to compare with: give a Parquet table with structures and DFT energies")
        config = CalibrationConfig(
            label=label,
            group=group,
            judges=tuple(words(judges)),
            limit=limit,
            limit_of_others=limit_of_others,
            seed=seed,
        )
        with Display(quiet=quiet) as display:
            folder = run(
                table,
                config,
                out=out_folder(out, smoke),
                work=finished,
                display=display,
                manifest=Manifest(),
            )
        typer.echo(folder / "table.md")


@app.command("training-curve")
def training_curve(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of runs of `druse-train fit`, each of which started from the one before.", show_default=False
        ),
    ] = None,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """What does an hour of training buy? Validation losses against hours and crystals seen."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench training-curve"):
        from druse_crystal.manifest import Manifest

        from druse_benchmarks.training_curve import small_run
        from druse_benchmarks.training_curve import training_curve as draw

        with Display(quiet=quiet) as display:
            if not runs:
                if not smoke:
                    raise ValueError("which run? give the folder that `druse-train fit --out` wrote")
                runs = [small_run(work_folder(work, smoke, "training-curve"), display)]
            folder = draw(runs, out=out_folder(out, smoke), manifest=Manifest())
        typer.echo(folder / "table.md")
