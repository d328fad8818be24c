"""The commands ``chemical-systems`` and ``cost``: methods at equal cost."""

from pathlib import Path
from typing import Annotated

import typer

from druse_benchmarks.options import (
    WORK,
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
    out_folder,
    read_dataset,
    words,
    work_folder,
)

equal_cost_app = typer.Typer()


@equal_cost_app.command("chemical-systems")
def chemical_systems(
    systems: Annotated[
        str | None, typer.Option(help="With commas, such as Li-Fe-O,O-Sr-V; nine by default.", show_default=False)
    ] = None,
    methods: Annotated[
        str, typer.Option(help="With commas.")
    ] = "druse,iterated-substitution,ion-exchange,pyxtal,airss",
    budget: Annotated[int, typer.Option(help="Force calls of each method in each system.")] = 5000,
    seed: Seed = 0,
    parents: Parents = "embedded",
    reference: Reference = "embedded",
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
    """What does each method find in a chemical system for the same number of force calls?

    Ctrl-C keeps what is finished; the same command continues. Systems and methods can be run one by one: the table has
    all that are there.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench chemical-systems"):
        from druse_evaluate.config import EvaluationConfig, RelaxationConfig
        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model

        from druse_benchmarks.chemical_systems import SYSTEMS, ExplorationConfig
        from druse_benchmarks.chemical_systems import chemical_systems as run

        max_steps = 500
        if smoke:
            budget, steps, num_atoms, max_steps = 30, 10, num_atoms or "3-6", 10
            systems = systems or "O-Sr-V"
        generation = with_options(GenerateConfig(), num_atoms=num_atoms, sampler=sampler, steps=steps)
        config = ExplorationConfig(
            systems=tuple(words(systems)) if systems else SYSTEMS,
            methods=tuple(words(methods)),
            budget=budget,
            seed=seed,
            sampler=generation.sampler,
            model=find_model(model, display=Display(quiet=quiet)),
            num_atoms=generation.num_atoms,
        )
        relaxation = RelaxationConfig(potential=potential, max_steps=max_steps, device=device)
        known, known_as = read_dataset(parents)
        with Display(quiet=quiet) as display:
            folder = run(
                config,
                evaluation=EvaluationConfig(reference=reference, relaxation=relaxation),
                parents=known,
                parents_hash=known_as,
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, "chemical-systems"),
                display=display,
            )
        typer.echo(folder / "table.md")


@equal_cost_app.command()
def cost(
    num: Annotated[int, typer.Option(help="Crystals asked for, of each method.")] = 1000,
    seed: Seed = 0,
    timed: Annotated[int, typer.Option(help="Crystals of each method whose processor time is measured.")] = 32,
    methods: Annotated[
        str, typer.Option(help="With commas: those of unconditional, and druse-screened.")
    ] = "druse,druse-screened,substitution,iterated-substitution,ion-exchange,pyxtal,airss",
    parents: Parents = "embedded",
    reference: Reference = "embedded",
    potential: PotentialName = "sevennet-0",
    sampler: SamplerName = "fast",
    steps: Steps = None,
    num_atoms: NumAtoms = None,
    model: Model = None,
    out: Out = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of finished work, shared with unconditional: build/benchmarks/unconditional."),
    ] = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How many stable, unique, novel structures for a force call, and for an hour of a processor core?

    Relaxations that `unconditional` left in --work are taken as they are. Ctrl-C keeps what is finished; the same
    command continues. Methods can be run one by one: the table has all that are there.
    """
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench cost"):
        from druse_crystal.dataset import load_embedded
        from druse_evaluate.config import EvaluationConfig, RelaxationConfig
        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model

        from druse_benchmarks.cost import cost as run
        from druse_benchmarks.sources import make_sources

        max_steps = 500
        if smoke:
            num, timed, steps, num_atoms, max_steps = 3, 2, 10, num_atoms or "2-4", 10
        generation = with_options(
            GenerateConfig(), num=num, seed=seed, num_atoms=num_atoms, sampler=sampler, steps=steps
        )
        relaxation = RelaxationConfig(potential=potential, max_steps=max_steps)
        known, known_as = read_dataset(parents)
        sources = make_sources(
            words(methods),
            parents=known,
            parents_hash=known_as,
            held_out=load_embedded(),
            sampler=generation.sampler,
            model=find_model(model, display=Display(quiet=quiet)),
            num_atoms=generation.num_atoms,
            potential=potential,
            reference=reference,
        )
        with Display(quiet=quiet) as display:
            folder = run(
                sources,
                num=num,
                seed=seed,
                timed=timed,
                evaluation=EvaluationConfig(reference=reference, relaxation=relaxation),
                out=out_folder(out, smoke),
                work=work or (work_folder(None, True, "cost") if smoke else WORK / "unconditional"),
                display=display,
            )
        typer.echo(folder / "table.md")
