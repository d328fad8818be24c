"""The one look of all pictures."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#7c5cff", "#14b8a6", "#f59e0b", "#3f5f8f", "#f472b6", "#64748b", "#84cc16", "#ef4444")
MARKED = "#f59e0b"


def canvas(columns: int = 1, rows: int = 1, *, width: float = 7.0, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """An empty picture, and its axes row by row.

    Args:
        columns: panels side by side.
        rows: panels one below the other.
        width: inches, of all of it.
        height: inches, of all of it.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#94a3b8", alpha=0.3, linewidth=0.8)
        panel.set_axisbelow(True)
    return figure, panels
