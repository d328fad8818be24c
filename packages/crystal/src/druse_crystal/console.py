"""What a person sees while a program works: progress on stderr, errors as one sentence."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

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
from rich.text import Text

TRACEBACK_VARIABLE = "DRUSE_TRACEBACK"
"""Set this environment variable to see the traceback behind an error."""


class Display:
    """Live progress on stderr: a line for every stage with rate, time left and running counts.

    Use it as a context manager; outside of one, and with ``quiet``, it shows nothing but warnings.
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

    def update(self, stage: str, done: float, total: int, counts: Mapping[str, int] | None = None) -> None:
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
        console = Console(stderr=True) if self.console.quiet else self.console
        console.print(sentence, highlight=False, markup=False, soft_wrap=True, style="yellow")


class _Rate(ProgressColumn):
    """Crystals per second or, when slow, per minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        text = f"{speed:.0f}/s" if speed >= 10 else f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"
        return Text(text, style="progress.data.speed")


@contextmanager
def user_errors(
    program: str, *, when_stopped: str = "What is finished is kept; the same command continues from there."
) -> Iterator[None]:
    """Turn what a user can mend into one sentence on stderr and exit code 2, and Ctrl-C into exit code 130."""
    console = Console(stderr=True)
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        console.print(f"[bold red]{program}:[/] ", end="")
        console.print(" ".join(str(error).split()), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        console.print(f"{program}: stopped. {when_stopped}")
        raise SystemExit(130) from None
