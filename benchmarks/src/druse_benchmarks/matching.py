"""How long does it take to tell what is new and what repeats itself? Beside pymatgen, on the same crystals."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from druse_baselines import Substitution
from druse_crystal import Crystal
from druse_crystal.console import Display
from druse_crystal.convert import to_pymatgen
from druse_crystal.dataset import CrystalDataset
from druse_crystal.manifest import Manifest
from druse_evaluation.matching import OrderDisorderMatcher, OrderedMatcher
from druse_evaluation.novelty import KnownStructures, first_occurrences
from druse_evaluation.prototypes import KnownPrototypes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, write_record

NAME = "matching"
RATTLE = 0.02  # fractional coordinates; far inside the matcher's tolerance


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """What is timed.

    Attributes:
        num: crystals that are asked about: half of them known ones with their atoms moved a little, the others made of
            known ones by exchanging an element; every tenth is there twice.
        references: numbers of known crystals.
        every_pair: crystals for which pymatgen compares every pair, also of different formulas; the time for all is
            scaled up from these.
        seed: chooses the crystals.
    """

    num: int = 1000
    references: tuple[int, ...] = (5000,)
    every_pair: int = 3
    seed: int = 0

    def __post_init__(self):
        smallest = min(self.references)
        for name, value in (("num", self.num), ("references", smallest), ("every_pair", self.every_pair)):
            if value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1")


def matching(
    *, config: MatchingConfig, dataset: CrystalDataset, out: Path, display: Display, manifest: Manifest
) -> Path:
    """Time novelty and uniqueness, check that all ways agree, and write the record.

    Args:
        config: what is timed.
        dataset: the known crystals, of which the first ``references`` of a random order serve.
        out: folder of all results.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: if the dataset has fewer crystals than are asked for.
        RuntimeError: if two ways give different answers.
    """
    if max(config.references) > len(dataset):
        raise ValueError(
            f"{max(config.references)} known crystals are asked for and the dataset has {len(dataset)}: "
            "give another one with --dataset, or smaller numbers"
        )
    order = np.random.default_rng(config.seed).permutation(len(dataset))
    known = [dataset.crystals[int(i)] for i in order[: max(config.references)]]
    asked = questions(known[: min(config.references)], config)
    structures = [to_pymatgen(crystal) for crystal in asked]
    first_occurrences(asked[:50], matcher=OrderedMatcher())  # what pymatgen loads once is nobody's time
    rows = []
    for number in config.references:
        display.say(f"{config.num} crystals among {number} known ones")
        rows.append(_novelty(asked, structures, known[:number], config))
    repeats = _uniqueness(asked, structures)
    manifest.seed = config.seed
    manifest.settings |= {
        "num": config.num,
        "references": list(config.references),
        "every_pair": config.every_pair,
        "rattle": RATTLE,
    }
    manifest.results |= {"novelty": rows, "uniqueness": repeats}
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={"matching": document},
        table=_table(rows, repeats, config),
        picture=picture(rows),
        caption="Seconds for the novelty of all crystals, against the number of known ones",
    )


def questions(known: Sequence[Crystal], config: MatchingConfig) -> list[Crystal]:
    """Crystals to ask about: known ones a little moved, substituted ones, and some of them twice."""
    rng = np.random.default_rng(config.seed)
    single = max(1, round(config.num / 1.1))
    moved = []
    for i in rng.choice(len(known), single // 2, replace=single // 2 > len(known)):
        crystal = known[int(i)]
        noise = rng.normal(scale=RATTLE, size=crystal.frac_coords.shape)
        moved.append(crystal.replace(frac_coords=(crystal.frac_coords + noise) % 1.0))
    new = list(Substitution(known)(single - len(moved), seed=config.seed))
    asked = [*moved, *new]
    asked += [asked[int(i)] for i in rng.integers(len(asked), size=config.num - len(asked))]
    return [asked[int(i)] for i in rng.permutation(len(asked))]


def _novelty(
    asked: Sequence[Crystal], structures: Sequence[Structure], known: Sequence[Crystal], config: MatchingConfig
) -> dict[str, Any]:
    """Seconds that each way needs for all of ``asked``."""

    def twice(known_ones: KnownStructures | KnownPrototypes) -> tuple[list[bool], float, float]:
        """What is new, and the seconds of asking for the first and for the second time."""
        new, first = _timed(lambda: [known_ones.first_match(crystal) is None for crystal in asked])
        return new, first, _timed(lambda: [known_ones.first_match(crystal) is None for crystal in asked])[1]

    index, built = _timed(lambda: KnownStructures(known, matcher=OrderedMatcher()))
    novel, first, again = twice(index)
    disordered, also_built = _timed(lambda: KnownStructures(known, matcher=OrderDisorderMatcher()))
    _, disordered_first, disordered_again = twice(disordered)
    new_types, types_first, types_again = twice(KnownPrototypes(known))

    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5.0)
    known_structures = [to_pymatgen(crystal) for crystal in known]
    by_formula: dict[str, list[Structure]] = defaultdict(list)
    for structure in known_structures:
        by_formula[structure.composition.reduced_formula].append(structure)

    def same_formula() -> list[bool]:
        return [
            not any(matcher.fit(structure, other) for other in by_formula[structure.composition.reduced_formula])
            for structure in structures
        ]

    by_pymatgen, pymatgen = _timed(same_formula)
    if by_pymatgen != novel:
        different = sum(a != b for a, b in zip(by_pymatgen, novel, strict=True))
        raise RuntimeError(f"{different} of {len(asked)} crystals are novel to one way and not to the other")
    some = structures[: config.every_pair]
    _, pairs = _timed(lambda: [[matcher.fit(structure, other) for other in known_structures] for structure in some])
    return {
        "known": len(known),
        "novel": sum(novel),
        "new_structure_type": sum(new_types),
        "seconds": {
            "druse": built + first,
            "druse, known crystals reduced before": again,
            "pymatgen, pairs of one formula": pymatgen,
            "pymatgen, every pair": pairs * len(asked) / len(some),
            "druse, order-disorder matcher": also_built + disordered_first,
            "druse, order-disorder matcher, known crystals reduced before": disordered_again,
            "druse, structure types": types_first,
            "druse, structure types, known crystals reduced before": types_again,
        },
    }


def _uniqueness(asked: Sequence[Crystal], structures: Sequence[Structure]) -> dict[str, Any]:
    firsts, druse = _timed(lambda: first_occurrences(asked, matcher=OrderedMatcher()))
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5.0)
    groups, pymatgen = _timed(lambda: matcher.group_structures(list(structures)))
    unique = len(set(firsts))
    return {
        "unique": unique,
        "groups_of_pymatgen": len(groups),
        "seconds": {"druse": druse, "pymatgen, group_structures": pymatgen},
    }


def _timed[T](work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _table(rows: Sequence[dict[str, Any]], repeats: dict[str, Any], config: MatchingConfig) -> str:
    header = ["seconds, novelty", *(f"{row['known']:,} known" for row in rows)]
    body = [[name, *(f"{row['seconds'][name]:,.1f}" for row in rows)] for name in rows[0]["seconds"]]
    lines = markdown_table(header, body)
    seconds = repeats["seconds"]
    uniqueness = markdown_table(
        ["seconds, uniqueness", f"{config.num:,} crystals"], [[name, f"{t:,.1f}"] for name, t in seconds.items()]
    )
    found = ", ".join(f"{row['novel']} novel among {row['known']:,}" for row in rows)
    return (
        f"{config.num:,} crystals; {found}; both ways agree about every one. {repeats['unique']} are unique by Druse, "
        f"pymatgen makes {repeats['groups_of_pymatgen']} groups. Every pair: scaled up from {config.every_pair} "
        f"crystals.\n\n{lines}\n{uniqueness}"
    )


def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """Seconds against the number of known crystals."""
    figure, (panel,) = canvas(width=7.0, height=4.2)
    for i, name in enumerate(rows[0]["seconds"]):
        panel.plot(
            [row["known"] for row in rows],
            [row["seconds"][name] for row in rows],
            marker="o",
            color=COLORS[i % len(COLORS)],
            label=name,
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    known = [row["known"] for row in rows]
    panel.set_xticks(known, [f"{n:,}" for n in known])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("known crystals")
    panel.set_ylabel("seconds for all")
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure
