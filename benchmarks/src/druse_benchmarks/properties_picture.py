"""The picture of properties that were asked for: a panel for each, a strip or a bar for each case."""

from collections.abc import Mapping, Sequence

import numpy as np
from druse.obtained import OBTAINABLE, names_of, read_target
from druse_guidance import Property
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from druse_benchmarks.answers import Answers
from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.properties_table import SEVEN, Asked

UNASKED = "#64748b"
EDGE = 0.01  # share of the values on either side that may lie outside of a panel; they are drawn at its edge
TITLES = {
    "ml_bulk_modulus": "bulk modulus",
    "dft_band_gap": "band gap",
    "dft_mag_density": "magnetic density",
    "hhi_score": "HHI",
}


def picture(answers: Mapping[str, Answers], asked: Asked, unasked: Answers | None) -> Figure:
    """Strips of obtained values for numbers, bars of hits for what is no number and for what was asked together.

    Of two numbers asked together all crystals are drawn, one against the other; of a number beside something else its
    strips.

    Args:
        answers: by case.
        asked: targets by case, of those that asked for something.
        unasked: crystals of which nothing was asked, if they are there.
    """
    figure, panels = canvas(2, 5, width=11.0, height=13.0)
    for panel, name in zip(panels, SEVEN, strict=False):  # the last three are for two at once
        found = OBTAINABLE[name]
        alone = {case: targets for case, targets in asked.items() if names_of(targets) == (name,)}
        if found.property.is_number:
            strips = {
                targets[0].removeprefix(name).lstrip("="): (answers[case].numbers(name), targets[0])
                for case, targets in alone.items()
            }
            _strips(panel, name, strips, unasked)
        else:
            _bars(panel, alone, answers, unasked)
        panel.set_title(_title(found.property), fontsize=10)
    together = {case: targets for case, targets in asked.items() if len(targets) > 1}
    numbers = {case: [text for text in targets if _is_number(text)] for case, targets in together.items()}
    _clouds(panels[-3], {case: texts for case, texts in numbers.items() if len(texts) == 2}, answers, unasked)
    beside = {case: texts[0] for case, texts in numbers.items() if len(texts) == 1}
    if beside:
        (name,) = {names_of([text])[0] for text in beside.values()}
        strips = {
            "\n".join(_short(text) for text in together[case]): (answers[case].numbers(name), text)
            for case, text in beside.items()
        }
        _strips(panels[-2], name, strips, unasked)
        panels[-2].set_title(_title(OBTAINABLE[name].property), fontsize=10)
    _bars(panels[-1], together, answers, unasked)
    panels[-1].set_title("two properties at once", fontsize=10)
    return figure


def _is_number(text: str) -> bool:
    return read_target(text).property.is_number


def _clouds(panel: Axes, cases: Asked, answers: Mapping[str, Answers], unasked: Answers | None) -> None:
    """One property against the other, and lines at the ends of what was asked for."""
    if not cases:
        return
    (names,) = {names_of(texts) for texts in cases.values()}
    clouds = [(answers[case], COLORS[i]) for i, case in enumerate(cases)]
    for found, color in [*([] if unasked is None else [(unasked, UNASKED)]), *clouds]:
        known = [pair for pair in zip(*(found.obtained[name] for name in names), strict=True) if None not in pair]
        x, y = np.array(known, dtype=float).reshape(-1, 2).T
        panel.plot(x, y, "o", markersize=3, alpha=0.45, color=color, markeredgewidth=0)
    for i, texts in enumerate(cases.values()):
        for target, line in zip(map(read_target, texts), (panel.axvline, panel.axhline), strict=True):
            for end in {target.low, target.high} - {-np.inf, np.inf}:
                line(end, color=COLORS[i], linestyle="--", linewidth=1.3)
    panel.set_xlabel(_title(OBTAINABLE[names[0]].property))
    panel.set_ylabel(_title(OBTAINABLE[names[1]].property))
    panel.set_title("asked together", fontsize=10)


def _title(asked: Property) -> str:
    title = TITLES.get(asked.name, asked.name.replace("_", " "))
    return f"{title}, {asked.unit}" if asked.unit else title


def _strips(panel: Axes, name: str, cases: Mapping[str, tuple[np.ndarray, str]], unasked: Answers | None) -> None:
    """A strip of points for each label, quartiles in black, and a line at the target."""
    strips = [(label, values, COLORS[i]) for i, (label, (values, _)) in enumerate(cases.items())]
    lines = [read_target(text).low for _, text in cases.values()]
    if unasked is not None:
        strips.append(("nothing", unasked.numbers(name), UNASKED))
    low, high = _limits([*(values for _, values, _ in strips), np.array(lines)])
    noise = np.random.default_rng(0)
    for row, (_, values, color) in enumerate(strips):
        places = row + noise.uniform(-0.28, 0.28, len(values))
        panel.plot(np.clip(values, low, high), places, "o", markersize=3, alpha=0.35, color=color, markeredgewidth=0)
        if len(values):
            first, middle, third = np.quantile(values, (0.25, 0.5, 0.75)).clip(low, high)
            panel.plot([first, third], [row, row], color="black", linewidth=1.6)
            panel.plot([middle], [row], "|", color="black", markersize=11, markeredgewidth=2)
    for row, line in enumerate(lines):
        panel.axvline(line, color=COLORS[row], linestyle="--", linewidth=1.3)
    panel.set_yticks(range(len(strips)), [label for label, _, _ in strips])
    panel.set_ylim(max(1, len(strips)) - 0.5, -0.5)
    panel.set_ylabel("asked")


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """From the least to the greatest of what is to be seen, a little more on either side."""
    known = [part for part in values if len(part)]
    if not known:
        return 0.0, 1.0
    low = min(float(np.quantile(part, EDGE)) for part in known)
    high = max(float(np.quantile(part, 1 - EDGE)) for part in known)
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def _bars(panel: Axes, cases: Asked, answers: Mapping[str, Answers], unasked: Answers | None) -> None:
    """Shares that hit, of crystals that were asked and of those that were not."""
    for row, (case, targets) in enumerate(cases.items()):
        panel.barh(row - 0.2, 100 * answers[case].share(targets).value, 0.36, color=COLORS[0])
        if unasked is not None:
            panel.barh(row + 0.2, 100 * unasked.share(targets).value, 0.36, color=UNASKED)
    labels = ["\n".join(_short(text) for text in targets) for targets in cases.values()]
    panel.set_yticks(range(len(cases)), labels)
    panel.set_ylim(max(1, len(cases)) - 0.5, -0.5)
    panel.set_xlabel("share that hits, %; gray: without asking")
    panel.set_xlim(left=0)


def _short(text: str) -> str:
    name = names_of([text])[0]
    rest = text.removeprefix(name)
    if not OBTAINABLE[name].property.is_number:
        return rest.removeprefix("=")
    return f"{TITLES.get(name, name.replace('_', ' '))} {rest.replace('>=', '≥ ').replace('<=', '≤ ').replace('=', '')}"
