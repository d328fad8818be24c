"""Pictures of an assessment, as plotly figures without a theme: the page sets the colours of text and grid."""

from collections import Counter

import numpy as np
import plotly.graph_objects as go

from druse_evaluation.assessment import METASTABLE, STABLE
from druse_evaluation.funnel import funnel
from druse_evaluation.metrics import calibrated_metastable_rate, calibrated_stable_rate
from druse_evaluation.table import CALIBRATED_ON, Assessment

ACCENT = "#7c5cff"
SECOND = "#14b8a6"
WARM = "#f59e0b"
MUTED = "#94a3b8"
FUNNEL_START = "#3f5f8f"
CRYSTAL_SYSTEMS = {
    "triclinic": "#94a3b8",
    "monoclinic": "#60a5fa",
    "orthorhombic": "#22d3ee",
    "tetragonal": "#34d399",
    "trigonal": "#facc15",
    "hexagonal": "#fb923c",
    "cubic": "#f472b6",
}
_CALIBRATED = {"generated": ("cautious", "diamond"), "wbm": ("hopeful", "diamond-open")}
HULL_RANGE = (-0.2, 0.6)
"""eV/atom shown of the distribution of hull distances; what lies beyond is counted in the outermost bins."""


def funnel_figure(assessment: Assessment) -> go.Figure:
    """How many crystals are left after each test, each test applied to those that passed the one before."""
    stages = funnel(assessment)
    total = max(len(assessment), 1)
    labels, counts = [s.label for s in stages], [s.count for s in stages]
    shades = [_blend(FUNNEL_START, ACCENT, i / max(len(stages) - 1, 1)) for i in range(len(stages))]
    figure = go.Figure(
        go.Bar(
            y=labels,
            x=counts,
            orientation="h",
            marker={"color": shades, "cornerradius": 5},
            text=[f"<b>{n}</b>  {100 * n / total:.0f} %" for n in counts],
            textposition="auto",
            insidetextanchor="end",
            insidetextfont={"color": "white"},
            customdata=[s.meaning for s in stages],
            hovertemplate="%{y}: %{x}<br>%{customdata}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", ticks="", showgrid=False)
    figure.update_xaxes(visible=False)
    return _tidy(figure, bargap=0.22)


def hull_figure(assessment: Assessment) -> go.Figure:
    """Distribution of the distance to the hull: new crystals, and known ones or duplicates."""
    above = assessment.values("energy_above_hull")
    new = assessment.flags("unique") & assessment.flags("novel")
    judged = ~np.isnan(above)
    edges = np.linspace(*HULL_RANGE, 41)
    centres, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    clipped = np.clip(above, HULL_RANGE[0] + 1e-9, HULL_RANGE[1] - 1e-9)
    figure = go.Figure()
    for name, chosen, color in (
        ("unique and novel", judged & new, ACCENT),
        ("known or repeated", judged & ~new, MUTED),
    ):
        counts, _ = np.histogram(clipped[chosen], edges)
        figure.add_bar(
            x=centres,
            y=counts,
            width=width,
            name=name,
            marker={"color": color},
            hovertemplate="%{y} within %{x:.2f} ± 0.01 eV/atom<extra>" + name + "</extra>",
        )
    for bound, text in ((STABLE, "hull"), (METASTABLE, "0.1")):
        figure.add_vline(x=bound, line={"dash": "dot", "width": 1.5, "color": WARM})
        figure.add_annotation(
            x=bound, y=1.0, yref="paper", yanchor="bottom", text=text, showarrow=False, font={"color": WARM, "size": 11}
        )
    figure.update_xaxes(title="energy above hull as judged, eV/atom", range=HULL_RANGE)
    figure.update_yaxes(title="crystals")
    return _tidy(figure, barmode="stack", bargap=0.04)


def cumulative_figure(assessment: Assessment) -> go.Figure:
    """Share of all crystals asked for at most so far above the hull, as judged; both calibrated shares, intervals."""
    above = assessment.trusted_distances()
    total = max(len(above), 1)
    ordered = np.sort(above[~np.isnan(above)])
    share = 100 * np.arange(1, len(ordered) + 1) / total
    figure = go.Figure(
        go.Scatter(
            x=ordered,
            y=share,
            mode="lines",
            line={"shape": "hv", "color": ACCENT, "width": 2.5},
            name="as judged",
            hovertemplate="%{y:.1f} % at most %{x:.3f} eV/atom<extra></extra>",
        )
    )
    for against in assessment.calibrated_on():
        rates = (
            calibrated_stable_rate(assessment, against=against),
            calibrated_metastable_rate(assessment, against=against),
        )
        figure.add_scatter(
            x=[STABLE, METASTABLE],
            y=[100 * r.value for r in rates],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * (r.interval[1] - r.value) for r in rates],
                "arrayminus": [100 * (r.value - r.interval[0]) for r in rates],
                "thickness": 1.5,
                "width": 5,
            },
            mode="markers",
            marker={"color": SECOND, "size": 10, "symbol": _CALIBRATED[against][1]},
            name=_CALIBRATED[against][0],
            hovertemplate="%{y:.1f} % expected at most %{x:.1f} eV/atom<extra>calibrated on "
            + CALIBRATED_ON[against]
            + "</extra>",
        )
    for bound in (STABLE, METASTABLE):
        figure.add_vline(x=bound, line={"dash": "dot", "width": 1.5, "color": WARM})
    figure.update_xaxes(title="energy above hull, eV/atom", range=HULL_RANGE)
    figure.update_yaxes(title="share of all, %", range=[0, 102])
    return _tidy(figure)


def element_figure(assessment: Assessment) -> go.Figure:
    """Periodic table: in how many crystals an element occurs."""
    from pymatgen.core import Element

    counts = Counter(s for system in assessment.strings("chemical_system") if system for s in system.split("-"))
    grid = np.full((9, 18), np.nan)
    annotations = []
    for element in Element:
        if element.Z > 103 or element.symbol in ("D", "T"):
            continue
        row, column = _place(element)
        n = counts.get(element.symbol, 0)
        grid[row, column] = n if n else np.nan
        annotations.append(
            {
                "x": column,
                "y": row,
                "text": f"<b>{element.symbol}</b><br><span style='font-size:9px'>{n or ''}</span>",
                "showarrow": False,
                "font": {"size": 12},
                "opacity": 1.0 if n else 0.35,
            }
        )
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            xgap=4,
            ygap=4,
            colorscale=[[0, "rgba(124,92,255,0.14)"], [1, "rgba(124,92,255,0.92)"]],
            showscale=False,
            hoverinfo="skip",
            zmin=0,
        )
    )
    figure.update_layout(annotations=annotations)
    figure.update_xaxes(visible=False, range=[-0.5, 17.5])
    figure.update_yaxes(visible=False, range=[8.5, -0.5])
    return _tidy(figure, height=470)


def space_group_figure(assessment: Assessment, *, n_most: int = 24) -> go.Figure:
    """The most frequent space groups of the relaxed crystals, coloured by crystal system."""
    rows = zip(
        assessment.values("space_group_number"),
        assessment.strings("space_group_symbol"),
        assessment.strings("crystal_system"),
        strict=True,
    )
    counts = Counter((int(number), symbol, system) for number, symbol, system in rows if symbol is not None)
    shown = sorted(counts.most_common(n_most))
    figure = go.Figure()
    order = [f"{symbol} ({number})" for (number, symbol, _), _ in shown]
    for system, color in CRYSTAL_SYSTEMS.items():
        chosen = [(f"{symbol} ({number})", n) for (number, symbol, s), n in shown if s == system]
        if chosen:
            names, values = zip(*chosen, strict=True)
            figure.add_bar(
                x=names,
                y=values,
                name=system,
                marker={"color": color, "cornerradius": 3},
                hovertemplate="%{x}: %{y}<extra></extra>",
            )
    figure.update_xaxes(categoryorder="array", categoryarray=order, tickangle=-55, showgrid=False)
    figure.update_yaxes(title="relaxed crystals")
    return _tidy(figure, height=400, barmode="stack", bargap=0.25)


def rmsd_figure(assessment: Assessment) -> go.Figure:
    """Distribution of the displacement on relaxation: crystals that keep their structure, and the others."""
    moved = assessment.values("rmsd")
    kept = assessment.flags("matches_relaxed")
    edges = np.linspace(0, 1.0, 41)
    clipped = np.clip(moved, 0, edges[-1] - 1e-9)
    figure = go.Figure()
    groups = (("still the same structure", kept, SECOND), ("another structure", ~kept, MUTED))
    for name, chosen, color in groups:
        counts, _ = np.histogram(clipped[chosen & ~np.isnan(moved)], edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=edges[1],
            name=name,
            marker={"color": color},
            hovertemplate="%{y} near %{x:.2f} Å<extra>" + name + "</extra>",
        )
    figure.update_xaxes(title="RMSD, Å (last bar: 1 and more)", range=[0, 1])
    figure.update_yaxes(title="crystals")
    return _tidy(figure, barmode="stack", bargap=0.04)


def diversity_figure(assessment: Assessment) -> go.Figure:
    """How many of the first n crystals are the first of their kind, and how many of these are also new, against n."""
    number = np.arange(1, len(assessment) + 1)
    unique = assessment.flags("unique")
    curves = [("unique", unique, MUTED), ("unique and novel", unique & assessment.flags("novel"), ACCENT)]
    if assessment.metadata.get("n_training_structures", 0):
        new = unique & assessment.flags("novel") & assessment.flags("novel_to_training")
        curves.append(("nor in the training set", new, SECOND))
    figure = go.Figure()
    for name, flags, color in curves:
        figure.add_scatter(
            x=number,
            y=np.cumsum(flags),
            mode="lines",
            name=name,
            line={"color": color, "width": 2.5},
            hovertemplate="%{y} of the first %{x}<extra>" + name + "</extra>",
        )
    figure.add_scatter(
        x=[0, len(assessment)],
        y=[0, len(assessment)],
        mode="lines",
        line={"color": WARM, "width": 1, "dash": "dot"},
        name="all",
        hoverinfo="skip",
    )
    figure.update_xaxes(title="crystals asked for")
    figure.update_yaxes(title="of these")
    return _tidy(figure)


def size_figure(assessment: Assessment) -> go.Figure:
    """How many atoms and how many elements the crystals have."""
    atoms = Counter(int(n) for n in assessment.values("num_atoms") if not np.isnan(n))
    figure = go.Figure(
        go.Bar(
            x=sorted(atoms),
            y=[atoms[n] for n in sorted(atoms)],
            marker={"color": ACCENT, "cornerradius": 3},
            hovertemplate="%{y} crystals of %{x} atoms<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title="atoms in the cell")
    figure.update_yaxes(title="crystals")
    return _tidy(figure, bargap=0.2)


def _blend(start: str, end: str, share: float) -> str:
    """A colour between two, all as #rrggbb."""
    parts = [(int(start[i : i + 2], 16), int(end[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(p + share * (q - p)):02x}" for p, q in parts)


def _place(element) -> tuple[int, int]:
    """Row and column in the table of nine rows, lanthanoids and actinoids below."""
    if element.is_lanthanoid:
        return 7, element.Z - 57 + 2
    if element.is_actinoid:
        return 8, element.Z - 89 + 2
    return element.row - 1, element.group - 1


def _tidy(figure: go.Figure, *, height: int = 340, **layout) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 10, "t": 26, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right", "traceorder": "normal"},
        hoverlabel={"font": {"family": "inherit"}},
        **layout,
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure
