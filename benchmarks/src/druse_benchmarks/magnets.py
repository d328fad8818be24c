"""Magnets without scarce elements: is a low risk of supply met when it is asked for together with a high density?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from druse.obtained import names_of, read_target
from druse_crystal.files import writable_folder
from druse_evaluation.summary import judge_sentence
from matplotlib.figure import Figure
from pymatgen.core import Composition, Element

from druse_benchmarks.answers import Answers, read_answers
from druse_benchmarks.asking import Asking, write_case
from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.properties_table import spread, words
from druse_benchmarks.record import EXPECTED, judged_and_expected, markdown_table, write_record

NAME = "magnets"
MAGNETIC, CHEAP = "dft_mag_density>=0.2", "hhi_score<=1500"
BOTH = (MAGNETIC, CHEAP)
CASES: Mapping[str, tuple[str, ...]] = {
    "magnets-of-low-hhi": BOTH,
    "magnets": (MAGNETIC,),
    "nothing": (),
}
"""The last experiment of Zeni et al., Nature 639, 624 (2025): both at once, the first alone, and neither."""
TOLD = ("Co", "Gd")
"""Elements that the paper tells of: they become rarer when a low index is asked for too."""
N_ELEMENTS = 12


def magnets(names: Sequence[str], *, asking: Asking, out: Path) -> Path:
    """Ask for magnets, with and without a low Herfindahl-Hirschman index, and obtain both.

    Args:
        names: of ``CASES``.
        asking: how crystals are drawn, judged and measured; its folder of work may be that of ``properties``, whose
            crystals of which nothing was asked are then used.
        out: folder of all results.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a case that does not exist, or one that the model cannot be asked for.
    """
    asking.check(names, CASES)
    folder = writable_folder(out / NAME)
    for name in names:
        write_case(folder, name, asking(name, CASES[name], names=names_of(BOTH)))
        write_magnets(out, like=name, asking=asking)
    return folder


def write_magnets(out: Path, *, like: str, asking: Asking) -> None:
    """Write tables, picture and section of the README from the JSON files that are there."""
    there = read_answers(out / NAME, CASES, like=like, display=asking.display)
    answers = {name: Answers.from_json(content["crystals"]) for name, content in there.items()}
    write_record(
        out,
        NAME,
        documents={},
        table=(
            f"{_table(there, answers)}\n"
            "Magnetic density (µB/Å³) and HHI: median and quartiles of the relaxed crystals. Shares are of the "
            "crystals asked for, with 95 % intervals; S.U.N.: at most 0.1 eV/atom above the hull as judged, unique and "
            f"novel. {EXPECTED} {judge_sentence(there[like]['judge'])}\n\n"
            "Share of the relaxed crystals that hold an element:\n\n"
            f"{_elements_table(answers)}"
        ),
        picture=picture(answers),
        caption="Herfindahl-Hirschman index against magnetic density of relaxed crystals",
    )


def _table(there: Mapping[str, Mapping[str, Any]], answers: Mapping[str, Answers]) -> str:
    rows = []
    for name, found in answers.items():
        rows.append(
            [
                words(CASES[name]),
                f"{len(found)}",
                *(spread(obtained, found) for obtained in names_of(BOTH)),
                *(str(found.share(targets)) for targets in ([MAGNETIC], [CHEAP], BOTH)),
                judged_and_expected(there[name]["results"], "sun"),
                f"{found.distinct([MAGNETIC], flag='sun')}",
                f"{found.distinct(BOTH, flag='sun')}",
                f"{found.calls}",
            ]
        )
    header = ["asked", "crystals", "magnetic density", "HHI", f"`{MAGNETIC}`", f"`{CHEAP}`", "both", "S.U.N."]
    return markdown_table([*header, f"S.U.N. with `{MAGNETIC}`", "S.U.N. with both", "predictor calls"], rows)


def element_counts(answers: Answers) -> Counter[str]:
    """How many of the relaxed crystals hold each element."""
    formulas = (formula for formula in answers.formulas if formula is not None)
    return Counter(element.symbol for formula in formulas for element in Composition(formula).elements)


def _elements_table(answers: Mapping[str, Answers]) -> str:
    counts = {name: element_counts(found) for name, found in answers.items()}
    total: Counter[str] = sum(counts.values(), Counter())
    common = [symbol for symbol, _ in total.most_common() if symbol not in TOLD][:N_ELEMENTS]
    rows = [
        [symbol, *(f"{counts[name][symbol] / max(1, found.calls):.1%}" for name, found in answers.items())]
        for symbol in (*TOLD, *sorted(common, key=lambda symbol: Element(symbol).Z))
    ]
    return markdown_table(["element", *(words(CASES[name]) for name in answers)], rows)


def picture(answers: Mapping[str, Answers]) -> Figure:
    """Index against density: filled points are S.U.N., and the corner that was asked for is shaded."""
    figure, (panel,) = canvas(width=7.5, height=4.6)
    density, index = (read_target(text) for text in BOTH)
    for i, (name, found) in reversed(list(enumerate(answers.items()))):
        x, y = (found.obtained[obtained] for obtained in names_of(BOTH))
        points = [(a, b, sun) for a, b, sun in zip(x, y, found.flags["sun"], strict=True) if None not in (a, b)]
        for filled in (False, True):
            panel.plot(
                [a for a, _, sun in points if sun == filled],
                [b for _, b, sun in points if sun == filled],
                "o",
                markersize=4.5,
                alpha=0.8,
                color=COLORS[i],
                markerfacecolor=COLORS[i] if filled else "none",
                label=words(CASES[name]).replace("`", "").replace(" and ", "\nand ") if filled else None,
            )
    panel.set_xlim(left=-0.005)
    panel.set_ylim(0, 10000)
    right = max(panel.get_xlim()[1], 1.1 * density.low)
    panel.axvspan(density.low, right, ymax=index.high / 10000, color="#94a3b8", alpha=0.25)
    panel.set_xlim(right=right)
    panel.set_xlabel("magnetic density, µB/Å³")
    panel.set_ylabel("Herfindahl-Hirschman index")
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), title="asked; filled: S.U.N.")
    return figure
