"""``druse-train``: datasets and training runs."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from druse_train.data_cli import data_app

RECIPES = Path(__file__).parent / "recipes"
KEPT = "What was learnt is kept; the same command with --resume goes on from there."

app = typer.Typer(no_args_is_help=True, help="Build datasets and train Druse models.", pretty_exceptions_enable=False)
app.add_typer(data_app)


Recipe = Annotated[
    Path | None, typer.Argument(help="YAML recipe, or the name of one in the package; without one, its default.")
]
Data = Annotated[Path | None, typer.Option(help="Parquet dataset; wins over the recipe's.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
MaxHours = Annotated[float | None, typer.Option(help="Stop after so many hours; wins over the recipe's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command()
def fit(
    recipe: Recipe = None,
    data: Data = None,
    out: Out = Path("run"),
    resume: Resume = False,
    max_hours: MaxHours = None,
    as_json: AsJson = False,
) -> None:
    """Train a score network; Ctrl-C keeps everything, --resume goes on."""
    from druse_crystal.console import user_errors

    from druse_train.config import FitConfig, read_recipe

    with user_errors("druse-train fit", when_stopped=KEPT):
        from druse_train.fitting import fit as run

        config = read_recipe(_recipe(recipe, "base"), FitConfig)
        results = _train(run, config, data=data, out=out, resume=resume, max_hours=max_hours)
    if as_json and _speaks():
        typer.echo(json.dumps(results))


@app.command()
def finetune(
    recipe: Recipe = None,
    base: Annotated[Path | None, typer.Option(help="Checkpoint folder; wins over the recipe's.")] = None,
    data: Data = None,
    out: Out = Path("run"),
    resume: Resume = False,
    max_hours: MaxHours = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter, so that a network can be asked for properties; Ctrl-C keeps everything, --resume goes on."""
    from druse_crystal.console import Display, user_errors

    from druse_train.config import FinetuneConfig, read_recipe

    with user_errors("druse-train finetune", when_stopped=KEPT):
        from druse_train.finetuning import finetune as run

        config = read_recipe(_recipe(recipe, "properties"), FinetuneConfig)
        if base is not None:
            config = replace(config, base=base.resolve())
        warned = partial(run, warn=Display().warn)
        results = _train(warned, config, data=data, out=out, resume=resume, max_hours=max_hours)
    if as_json and _speaks():
        typer.echo(json.dumps(results))


def _speaks() -> bool:
    """Whether this process is the first, or the only one, of those that Lightning has started."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _recipe(given: Path | None, default: str) -> Path:
    """The file that was given, or the recipe of that name in the package."""
    inside = RECIPES / f"{given or default}.yaml"
    return inside if given is None or (not given.exists() and inside.exists()) else given


def _train(
    run: Callable[..., Any], config: Any, *, data: Path | None, out: Path, resume: bool, max_hours: float | None
) -> dict[str, Any]:
    """Read the data, run, write the manifest; returns what it says of the result."""
    from druse_crystal.dataset import CrystalDataset, load_embedded
    from druse_crystal.manifest import Manifest, file_hash
    from druse_crystal.settings import override

    from druse_train.code_version import code_version
    from druse_train.display import TrainingDisplay
    from druse_train.recorder import STATE

    if data is not None:
        config = replace(config, data=replace(config.data, path=data.resolve()))
    config = override(config, max_hours=max_hours)
    if not resume and (out / STATE).exists():
        raise ValueError(f"{out} holds a run already: add --resume, or choose another --out")
    path = config.data.path
    dataset = load_embedded() if path is None else CrystalDataset.read(path)
    digest = "" if path is None else file_hash(path)
    card = {"data": "embedded" if path is None else {"file": path.name, "sha256": digest}, "code": code_version()}
    manifest = Manifest(seed=config.seed, settings={"recipe": asdict(config)})
    if path is not None:
        manifest.inputs[str(path)] = digest
    with TrainingDisplay(max_hours=config.max_hours, quiet=not _speaks()) as display, manifest.stage("training"):
        progress = run(config, dataset, out, resume=resume, card=card, show=display.show)
    manifest.results |= {"steps": progress.step, "hours": progress.seconds / 3600, "best": progress.best}
    if _speaks():
        manifest.write(out / "manifest.json")
    return manifest.results
