"""The metrics for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from druse_evaluation.metrics import Measured


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
