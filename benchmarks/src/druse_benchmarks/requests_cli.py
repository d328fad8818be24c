"""The commands about what can be asked of a model, and what tells whether it was met."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from druse_benchmarks.options import (
    Device,
    Model,
    Out,
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

if TYPE_CHECKING:
    from druse_crystal.console import Display

    from druse_benchmarks.asking import Asking

requests_app = typer.Typer()

Cases = Annotated[str | None, typer.Option("--cases", help="With commas; all of them.", show_default=False)]
Guidance = Annotated[
    float | None, typer.Option(help="Scale of classifier-free guidance; 2, as `druse generate`.", show_default=False)
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option("--adapter", help="File of an adapter, besides those that come with the model.", show_default=False),
]


@requests_app.command()
def constraints(
    num: Annotated[int, typer.Option(help="Crystals asked for under each constraint.")] = 500,
    names: Annotated[
        str | None, typer.Option("--constraints", help="With commas; all of them.", show_default=False)
    ] = None,
    seed: Seed = 0,
    reference: Reference = "embedded",
    potential: PotentialName = "sevennet-0",
    sampler: SamplerName = "fast",
    steps: Steps = None,
    model: Model = None,
    device: Device = "cpu",
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """Do crystals keep the elements, formulas, counts and space groups asked for, and what does it cost?"""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench constraints"):
        from druse_evaluate.config import EvaluationConfig, RelaxationConfig
        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model

        from druse_benchmarks.constraints import CONSTRAINTS, NAME
        from druse_benchmarks.constraints import constraints as run

        if smoke:
            num, steps = 2, 10
            names = names or "formula,space-group-225,doping"
        with Display(quiet=quiet) as display:
            folder = run(
                words(names) if names else list(CONSTRAINTS),
                generation=with_options(GenerateConfig(), num=num, seed=seed, sampler=sampler, steps=steps),
                model=find_model(model, display=display),
                evaluation=EvaluationConfig(
                    reference=reference,
                    relaxation=RelaxationConfig(potential=potential, max_steps=10 if smoke else 500, device=device),
                ),
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, NAME),
                display=display,
            )
        typer.echo(folder / "table.md")


@requests_app.command("structure-prediction")
def structure_prediction(
    num: Annotated[int, typer.Option(help="Crystals to be found.")] = 200,
    draws: Annotated[int, typer.Option(help="Draws for each.")] = 1,
    ways: Annotated[str, typer.Option(help="counted, fixed, or both with a comma.")] = "counted,fixed",
    dataset: Annotated[
        str, typer.Option(help="Crystals: the test split of the embedded ones, or that of a Parquet file.")
    ] = "embedded",
    seed: Seed = 0,
    sampler: SamplerName = "fast",
    steps: Steps = None,
    model: Model = None,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """Does the model find the structure of a composition that it has not seen?"""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench structure-prediction"):
        from druse_crystal.manifest import Manifest
        from druse_generate.config import GenerateConfig, with_options
        from druse_generate.find_model import find_model

        from druse_benchmarks.structure_prediction import NAME, PredictionConfig
        from druse_benchmarks.structure_prediction import structure_prediction as run

        if smoke:
            num, draws, steps = 4, 2, 10
        config = PredictionConfig(
            num=num,
            draws=draws,
            ways=tuple(words(ways)),
            seed=seed,
            sampler=with_options(GenerateConfig(), sampler=sampler, steps=steps).sampler,
        )
        with Display(quiet=quiet) as display:
            folder = run(
                config,
                read_dataset(dataset)[0].subset("test").crystals,
                model=find_model(model, display=display),
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, NAME),
                display=display,
                manifest=Manifest(),
            )
        typer.echo(folder / "table.md")


@requests_app.command("label-fractions")
def label_fractions(
    shares: Annotated[str, typer.Option(help="Of the labels, with commas.")] = "0.1,0.3,1",
    training_steps: Annotated[int, typer.Option(help="Steps of training for each share.")] = 3000,
    num: Annotated[int, typer.Option(help="Crystals drawn of each adapter.")] = 96,
    dataset: Annotated[str, typer.Option(help="Crystals with labels: embedded, or a Parquet file.")] = "embedded",
    column: Annotated[str, typer.Option(help="Of the dataset, with bulk moduli in GPa.")] = "dft_bulk_modulus",
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance.")] = 2.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all of them.", show_default=False)] = None,
    seed: Seed = 0,
    model: Model = None,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How many labels does an adapter need? Trains one for each share of the bulk moduli."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench label-fractions"):
        from druse_crystal.manifest import Manifest
        from druse_generate.find_model import find_model

        from druse_benchmarks.label_fractions import NAME, FractionsConfig
        from druse_benchmarks.label_fractions import label_fractions as run

        if smoke:
            shares, training_steps, num = "0.5,1", 4, 3
        try:
            parts = tuple(float(word) for word in words(shares))
        except ValueError:
            raise ValueError(f"--shares is {shares!r}: write numbers such as 0.1,0.3,1") from None
        config = FractionsConfig(
            shares=parts,
            steps=training_steps,
            num=num,
            guidance=guidance,
            sampler_steps=4 if smoke else 50,
            column=column,
            seed=seed,
            threads=threads,
        )
        crystals, name = read_dataset(dataset)
        manifest = Manifest()
        manifest.inputs["dataset"] = name
        with Display(quiet=quiet) as display:
            folder = run(
                config,
                crystals,
                model=find_model(model, display=display),
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, NAME),
                display=display,
                manifest=manifest,
            )
        typer.echo(folder / "table.md")


@requests_app.command()
def predictors(
    names: Annotated[str, typer.Option("--predictors", help="With commas.")] = "bulk-modulus,magnetic-density,band-gap",
    num: Annotated[int | None, typer.Option(help="Crystals of each label; all of them.", show_default=False)] = None,
    dataset: Annotated[str, typer.Option(help="Crystals with labels: embedded, or a Parquet file.")] = "embedded",
    seed: Seed = 0,
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """How far are predicted properties from their labels? Bulk moduli, magnetic moments, band gaps."""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench predictors"):
        from druse_crystal.manifest import Manifest

        from druse_benchmarks.predictors import NAME
        from druse_benchmarks.predictors import predictors as run

        labelled, _ = read_dataset(dataset)
        with Display(quiet=quiet) as display:
            folder = run(
                tuple(words(names)),
                labelled,
                num=5 if smoke else num,
                seed=seed,
                out=out_folder(out, smoke),
                work=work_folder(work, smoke, NAME),
                display=display,
                manifest=Manifest(),
            )
        typer.echo(folder / "table.md")


@requests_app.command()
def properties(
    num: Annotated[int, typer.Option(help="Crystals asked for in each case.")] = 200,
    cases: Cases = None,
    guidance: Guidance = None,
    adapters: Adapters = None,
    dataset: Annotated[
        str, typer.Option(help="Crystals with labels to compare with: embedded, or a Parquet file.")
    ] = "embedded",
    seed: Seed = 0,
    reference: Reference = "embedded",
    potential: PotentialName = "sevennet-0",
    sampler: SamplerName = "fast",
    steps: Steps = None,
    model: Model = None,
    device: Device = "cpu",
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """Do crystals have the properties asked for, and is asking cheaper than sifting?"""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench properties"):
        from druse_benchmarks.properties import CASES, NAME
        from druse_benchmarks.properties import properties as run

        if smoke:
            num, steps, cases = 2, 10, cases or "nothing,hhi-1250"
        with Display(quiet=quiet) as display:
            asking = _asking(
                display=display,
                num=num,
                guidance=guidance,
                adapters=adapters,
                seed=seed,
                reference=reference,
                potential=potential,
                sampler=sampler,
                steps=steps,
                model=model,
                device=device,
                work=work_folder(work, smoke, NAME),
                smoke=smoke,
            )
            labelled, dataset_name = read_dataset(dataset)
            folder = run(
                words(cases) if cases else list(CASES),
                asking=asking,
                dataset=labelled,
                dataset_name=dataset_name,
                out=out_folder(out, smoke),
            )
        typer.echo(folder / "table.md")


@requests_app.command()
def magnets(
    num: Annotated[int, typer.Option(help="Crystals asked for in each case.")] = 200,
    cases: Cases = None,
    guidance: Guidance = None,
    adapters: Adapters = None,
    seed: Seed = 0,
    reference: Reference = "embedded",
    potential: PotentialName = "sevennet-0",
    sampler: SamplerName = "fast",
    steps: Steps = None,
    model: Model = None,
    device: Device = "cpu",
    out: Out = None,
    work: Work = None,
    smoke: Smoke = False,
    quiet: Quiet = False,
) -> None:
    """Does a magnet get by without scarce elements if it is asked to?"""
    from druse_crystal.console import Display, user_errors

    with user_errors("druse-bench magnets"):
        from druse_benchmarks.magnets import CASES
        from druse_benchmarks.magnets import magnets as run
        from druse_benchmarks.properties import NAME as SHARED  # crystals of which nothing is asked are the same there

        if smoke:
            num, steps, cases = 2, 10, cases or "magnets-of-low-hhi,nothing"
        with Display(quiet=quiet) as display:
            asking = _asking(
                display=display,
                num=num,
                guidance=guidance,
                adapters=adapters,
                seed=seed,
                reference=reference,
                potential=potential,
                sampler=sampler,
                steps=steps,
                model=model,
                device=device,
                work=work_folder(work, smoke, SHARED),
                smoke=smoke,
            )
            folder = run(words(cases) if cases else list(CASES), asking=asking, out=out_folder(out, smoke))
        typer.echo(folder / "table.md")


def _asking(
    *,
    display: "Display",
    num: int,
    guidance: float | None,
    adapters: list[Path] | None,
    seed: int,
    reference: str,
    potential: str,
    sampler: str,
    steps: int | None,
    model: Path | None,
    device: str,
    work: Path,
    smoke: bool,
) -> "Asking":
    """How crystals with properties are asked for, of options."""
    from druse_evaluate.config import EvaluationConfig, RelaxationConfig
    from druse_generate.config import GenerateConfig, with_options
    from druse_generate.find_model import find_model

    from druse_benchmarks.asking import Asking

    return Asking(
        generation=with_options(GenerateConfig(), num=num, seed=seed, sampler=sampler, steps=steps),
        model=find_model(model, display=display),
        evaluation=EvaluationConfig(
            reference=reference,
            relaxation=RelaxationConfig(potential=potential, max_steps=10 if smoke else 500, device=device),
        ),
        work=work,
        display=display,
        adapters=tuple(adapters or ()),
        guidance=guidance,
    )
