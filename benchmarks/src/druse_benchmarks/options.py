"""Options that several commands have, and what their words mean."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from druse_crystal.dataset import CrystalDataset

EMBEDDED = "embedded"
RESULTS, WORK = Path("benchmarks/results"), Path("build/benchmarks")
SMOKE_RESULTS, SMOKE_WORK = Path("build/benchmarks-smoke/results"), Path("build/benchmarks-smoke/work")

Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of all results; benchmarks/results.", show_default=False)
]
Work = Annotated[
    Path | None, typer.Option(help="Folder of unfinished work; build/benchmarks/<command>.", show_default=False)
]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="Checkpoint folder, or name of a published one; without one, the model that ships."),
]
Seed = Annotated[int, typer.Option(help="Same seed, same crystals.")]
NumAtoms = Annotated[str | None, typer.Option("--num-atoms", help="Atoms in a cell: 8, or 4-12.", show_default=False)]
Reference = Annotated[str, typer.Option(help="embedded, or the path of a reference.")]
PotentialName = Annotated[str, typer.Option("--potential", help="sevennet-0, sevennet-l3i5 or chgnet.")]
Parents = Annotated[str, typer.Option(help="Dataset whose training split the classical methods start from; embedded.")]
SamplerName = Annotated[str, typer.Option("--sampler", help="fast, quick, predictor, paper or published.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the sampler.", show_default=False)]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Tiny: does it run? Written to build/, worth nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def out_folder(out: Path | None, smoke: bool) -> Path:
    """Where the results go."""
    return out or (SMOKE_RESULTS if smoke else RESULTS)


def work_folder(work: Path | None, smoke: bool, name: str) -> Path:
    """Where unfinished work is kept."""
    if smoke and work is None:  # a trial starts from nothing
        shutil.rmtree(SMOKE_WORK / name, ignore_errors=True)
    return work or (SMOKE_WORK if smoke else WORK) / name


def read_dataset(name: str) -> tuple["CrystalDataset", str]:
    """The embedded dataset or that of a path, and what names it in a protocol: the word, or the hash of the file.

    Raises:
        ValueError: if it cannot be read.
    """
    from druse_crystal.dataset import CrystalDataset, load_embedded
    from druse_crystal.manifest import file_hash

    if name == EMBEDDED:
        return load_embedded(), EMBEDDED
    return CrystalDataset.read(name), file_hash(name)


def words(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",")]


def numbers(text: str, *, option: str) -> tuple[int, ...]:
    """Numbers with commas between them.

    Raises:
        ValueError: names the option.
    """
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"{option} is {text!r}: write a number such as 1, or several such as 1,2") from None
