"""What a person sees while the program works: progress on stderr, errors as one sentence, metrics as a table."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from druse_evaluation.metrics import Measured

TRACEBACK_VARIABLE = "DRUSE_TRACEBACK"
"""Set this environment variable to see the traceback behind an error."""


class Display:
    """Live progress on stderr: a line for every stage with rate, time left and running counts.

    Use it as a context manager; outside of one, and with ``quiet``, it shows nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[counts]}"),
            console=self.console,
            disable=quiet,
        )

    def __enter__(self) -> "Display":
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def update(self, stage: str, done: int, total: int, counts: Mapping[str, int] | None = None) -> None:
        """Show that a stage has come so far; the first call of a stage starts its line."""
        text = "  ".join(f"{name} {n}" for name, n in (counts or {}).items())
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, counts=text)
        self._progress.update(self._tasks[stage], completed=done, total=total, counts=text)

    def say(self, sentence: str) -> None:
        """Print a sentence above the progress."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def warn(self, sentence: str) -> None:
        """Print a sentence about something that went wrong above the progress."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True, style="yellow")


class _Rate(ProgressColumn):
    """Crystals per second or, when slow, per minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        text = f"{speed:.0f}/s" if speed >= 10 else f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"
        return Text(text, style="progress.data.speed")


@contextmanager
def user_errors(program: str) -> Iterator[None]:
    """Turn what a user can mend into one sentence on stderr and exit code 2, and Ctrl-C into exit code 130."""
    console = Console(stderr=True)
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        console.print(f"[bold red]{program}:[/] ", end="")
        console.print(" ".join(str(error).split()), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        console.print(f"{program}: stopped. What is finished is kept; the same command continues from there.")
        raise typer.Exit(130) from None


def metrics_table(measured: Sequence["Measured"]) -> Table:
    """The metrics for a terminal."""
    from druse_evaluation.metrics import Rate

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("metric")
    table.add_column("count", justify="right")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for item in measured:
        value = item.value
        if isinstance(value, Rate):
            low, high = value.interval
            cells = (
                f"{value.count:g} / {value.total}"
                if value.count == int(value.count)
                else f"{value.count:.1f} / {value.total}"
            )
            table.add_row(
                item.metric.label, cells, f"{100 * value.value:.1f} %", f"{100 * low:.1f} – {100 * high:.1f} %"
            )
        elif value.n:
            low, high = value.interval
            table.add_row(
                item.metric.label,
                str(value.n),
                f"{value.mean:.3f} {value.unit}",
                f"{low:.3f} – {high:.3f}" if value.n > 1 else "",
            )
            table.add_row("  median", "", f"{value.median:.3f} {value.unit}", "")
    return table
