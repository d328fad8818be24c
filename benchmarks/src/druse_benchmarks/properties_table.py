"""The two tables of properties that were asked for: what was obtained, and what a hit costs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from druse.obtained import OBTAINABLE, Value, names_of
from druse_evaluation.estimate import Rate

from druse_benchmarks.answers import Answers
from druse_benchmarks.record import EXPECTED, judged_and_expected, markdown_table

SEVEN = (
    "chemical_system",
    "space_group",
    "energy_above_hull",
    "ml_bulk_modulus",
    "dft_band_gap",
    "dft_mag_density",
    "hhi_score",
)
"""The properties of the paper, of ``OBTAINABLE``."""

type Contents = Mapping[str, Mapping[str, Any]]
type Asked = Mapping[str, Sequence[str]]


def table(there: Contents, answers: Mapping[str, Answers], asked: Asked, unasked: Answers | None, sentence: str) -> str:
    """Both tables as Markdown, with what the reader must know to read them.

    Args:
        there: JSON files by case.
        answers: their crystals.
        asked: targets by case, of those that asked for something.
        unasked: crystals of which nothing was asked, if they are there.
        sentence: about the judge.
    """
    return (
        f"{_obtained_table(there, answers, asked, unasked)}\n"
        "Obtained: median and quartiles of the relaxed crystals, or what is commonest. A single number is hit within "
        f"{_tolerances()}; everything else is hit exactly. Distinct hits: unique / unique and novel crystals. Shares "
        "are of the crystals asked for, with 95 % intervals; S.U.N.: at most 0.1 eV/atom above the hull, unique and "
        f"novel, stable: at most 0 eV/atom, both as judged. {EXPECTED} {sentence}\n\n"
        "Distinct crystals that meet the target for 100 predictor calls, any / novel ones:\n\n"
        f"{_calls_table(there, answers, asked, unasked)}\n"
        "A call obtains what was asked for of one crystal, whether a potential or a formula gives it. Without asking: "
        "crystals of which nothing was asked are sifted by the same predictors. Dataset: known crystals are sifted by "
        "their labels, each a call, or by what follows from the crystal; none of them is novel.\n"
    )


def _tolerances() -> str:
    return ", ".join(
        f"{found.tolerance:g} {found.property.unit}".rstrip() + f" (`{name}`)"
        for name in SEVEN
        if (found := OBTAINABLE[name]).property.is_number
    )


def words(targets: Sequence[str]) -> str:
    """Targets as they stand in a table."""
    return " and ".join(f"`{text}`" for text in targets) or "nothing"


def _obtained_table(there: Contents, answers: Mapping[str, Answers], asked: Asked, unasked: Answers | None) -> str:
    rows = []
    for name, content in there.items():
        found, targets, results = answers[name], asked.get(name, ()), content["results"]
        row = [words(targets), f"{len(found)}"]
        if targets:
            row += [
                "; ".join(spread(n, found) for n in names_of(targets)),
                "" if unasked is None else "; ".join(spread(n, unasked) for n in names_of(targets)),
                str(found.share(targets)),
                "" if unasked is None else str(unasked.share(targets)),
                f"{found.distinct(targets)} / {found.distinct(targets, flag='novel')}",
            ]
        else:
            row += [""] * 5
        row += [judged_and_expected(results, rate) for rate in ("sun", "stable")]
        rows.append([*row, f"{found.calls}"])
    header = ["asked", "crystals", "obtained", "without asking", "hit", "hit without asking", "distinct hits"]
    return markdown_table([*header, "S.U.N.", "stable", "predictor calls"], rows)


def spread(name: str, answers: Answers) -> str:
    """Median and quartiles of a property of some crystals; the two commonest values of one that is no number."""
    if not OBTAINABLE[name].property.is_number:
        return _commonest(answers.obtained[name])
    values = answers.numbers(name)
    if not len(values):
        return "–"
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]" if high < 1000 else f"{middle:.0f} [{low:.0f}, {high:.0f}]"


def _commonest(values: Sequence[Value]) -> str:
    known = [value if isinstance(value, str) else f"{value:.0f}" for value in values if value is not None]
    return ", ".join(f"{value} {n / len(known):.0%}" for value, n in Counter(known).most_common(2)) or "–"


def _calls_table(there: Contents, answers: Mapping[str, Answers], asked: Asked, unasked: Answers | None) -> str:
    rows = []
    for name, targets in asked.items():
        found = there[name]["dataset"]["found"]
        rows.append(
            [
                words(targets),
                _for_calls(answers[name], targets),
                "" if unasked is None else _for_calls(unasked, targets),
                "–" if found is None else f"{_per_100(found['hits'], found['predictor_calls'])} / 0",
                "–" if found is None else f"{found['predictor_calls']:,}",
            ]
        )
    return markdown_table(["asked", "asking", "without asking", "dataset", "labels in the dataset"], rows)


def _for_calls(answers: Answers, targets: Sequence[str]) -> str:
    counts = answers.distinct(targets), answers.distinct(targets, flag="novel")
    return " / ".join(_per_100(count, answers.calls) for count in counts)


def _per_100(count: int, calls: int) -> str:
    if not calls:
        return "–"
    low, high = Rate(count, calls).interval
    return f"{100 * count / calls:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
