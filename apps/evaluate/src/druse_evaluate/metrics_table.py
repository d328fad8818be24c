"""The metrics on stdout: a table for people, JSON for programs."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from druse_evaluation.metrics import Measured
    from druse_evaluation.table import Assessment


def print_metrics(assessment: "Assessment", *, as_json: bool = False) -> None:
    """Print the metrics with the judge's own error."""
    from druse_evaluation import summary
    from druse_evaluation.metrics import measure
    from druse_evaluation.statuses import no_crystal_sentence

    measured = measure(assessment)
    if as_json:
        print(json.dumps(summary.as_json(assessment, measured), indent=2))
        return
    console = Console()
    console.print(metrics_table(measured))
    if lost := no_crystal_sentence(assessment):
        console.print(lost, style="dim", highlight=False)
    console.print(summary.plausibility_sentence(assessment), style="dim", highlight=False)
    said = f"{summary.judge_sentence(assessment.metadata)} {summary.calibration_gap(assessment)}".strip()
    console.print(said, style="dim", highlight=False)


def metrics_table(measured: Sequence["Measured"]) -> Table:
    """The metrics for a terminal."""
    from druse_evaluation.estimate import Rate
    from druse_evaluation.table import CALIBRATED_ON

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("metric")
    table.add_column("count", justify="right")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for item in measured:
        value, against = item.value, item.metric.against
        label = f"  calibrated on {CALIBRATED_ON[against]}" if against else item.metric.label
        if isinstance(value, Rate):
            low, high = value.interval
            cells = (
                f"{value.count:g} / {value.total}"
                if value.count == int(value.count)
                else f"{value.count:.1f} / {value.total}"
            )
            table.add_row(label, cells, f"{100 * value.value:.1f} %", f"{100 * low:.1f} – {100 * high:.1f} %")
        elif value.n:
            low, high = value.interval
            table.add_row(
                label,
                str(value.n),
                f"{value.mean:.3f} {value.unit}",
                f"{low:.3f} – {high:.3f}" if value.n > 1 else "",
            )
            table.add_row("    median" if against else "  median", "", f"{value.median:.3f} {value.unit}", "")
    return table
