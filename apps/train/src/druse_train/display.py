"""What a person sees of a training run."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class TrainingDisplay:
    """One live line with step and losses on stderr, and a line that stays for each validation.

    Args:
        max_hours: of training; None: no limit.
        quiet: say nothing, as one of several processes.
    """

    def __init__(self, *, max_hours: float | None, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[news]}"),
            console=self.console,
        )
        self._task = self._progress.add_task("training", total=max_hours, news="starting")

    def __enter__(self) -> "TrainingDisplay":
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def show(self, kind: str, values: dict[str, float]) -> None:
        """Show news of one kind (``train`` or ``validation``)."""
        shown = {name.removeprefix("val_"): value for name, value in values.items() if name != "hours"}
        text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if kind == "train":
            self._progress.update(self._task, completed=values["hours"], news=text)
        else:
            self.console.print(f"validation: {text}", highlight=False)
