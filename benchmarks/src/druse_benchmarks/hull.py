"""How long does a distance to the hull take? Beside pymatgen, on the same phases and queries."""

import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal.console import Display
from druse_crystal.manifest import Manifest
from druse_energetics.hull import ConvexHull
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry
from pymatgen.core import Composition

from druse_benchmarks.drawing import COLORS, canvas
from druse_benchmarks.record import machine_load, markdown_table, write_record

NAME = "hull"
LARGEST_AMOUNT = 6  # atoms of an element in a formula that is asked about
ENERGIES = (-4.0, 1.0)  # eV/atom, of the crystals that are asked about
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # ms
AGREEMENT = 1e-6  # eV/atom


@dataclass(frozen=True, kw_only=True)
class HullConfig:
    """What is timed.

    Attributes:
        num: crystals that are asked about, each a random formula of a chemical system in which phases are known.
        num_elements: as many elements at most, the commonest of the hull; None: all of them.
        seed: chooses the formulas.
    """

    num: int = 1000
    num_elements: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"num is {self.num}, it must be at least 1")
        if self.num_elements is not None and self.num_elements < 2:
            raise ValueError(f"num_elements is {self.num_elements}, it must be at least 2")


def hull(*, config: HullConfig, phases: ConvexHull, out: Path, display: Display, manifest: Manifest) -> Path:
    """Time both, check that they agree, and write the record.

    Args:
        config: what is timed.
        phases: the phases of this hull are given to both.
        out: folder of all results.
        display: shows progress.
        manifest: receives the protocol; has the hash of the phases' file among its inputs.

    Returns:
        the folder of the record.

    Raises:
        RuntimeError: if the two disagree by more than 1e-6 eV/atom.
    """
    compositions, energies = _known(phases, config.num_elements)
    asked = questions(compositions, config)
    display.say(f"{len(compositions)} phases: Druse")
    with manifest.stage("druse"):
        ours, built = _timed(lambda: ConvexHull(compositions, energies))
        distances, times = _each(lambda c, e: ours.energy_above_hull(c, e), asked)
    display.say(f"{len(compositions)} phases: pymatgen (minutes for tens of thousands)")
    entries = [PDEntry(c, e * c.num_atoms) for c, e in zip(compositions, energies, strict=True)]
    with manifest.stage("pymatgen"):
        theirs, their_built = _timed(lambda: PatchedPhaseDiagram(entries))

    def distance(composition: Composition, energy: float) -> float:
        entry = PDEntry(composition, energy * composition.num_atoms)
        above = theirs.get_decomp_and_e_above_hull(entry, allow_negative=True)[1]
        assert above is not None  # pymatgen would have raised
        return float(above)

    with manifest.stage("pymatgen"):
        expected, their_times = _each(distance, asked)
    largest = float(np.abs(np.subtract(distances, expected)).max())
    if largest > AGREEMENT:
        raise RuntimeError(f"the distances to the hull differ by up to {largest:.1e} eV/atom")
    manifest.seed = config.seed
    manifest.settings |= {
        "num": config.num,
        "num_elements": config.num_elements,
        "threads": 1,
        "judge": None,  # random energies are asked about
        "matcher": None,  # no two crystals are compared
    }
    manifest.results |= {
        "phases": len(compositions),
        "chemical_systems_of_pymatgen": len(theirs.spaces),
        "largest_difference": largest,
        "force_calls": 0,
        "seconds": {
            "druse": {"construction": built, "queries": sum(times)},
            "pymatgen": {"construction": their_built, "queries": sum(their_times)},
        },
        "milliseconds_by_elements": _by_elements(asked, {"druse": times, "pymatgen": their_times}),
    }
    document = manifest.as_dict()
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={NAME: document},
        table=_table(manifest.results, config),
        picture=picture(manifest.results),
        caption="Milliseconds for a distance to the hull, median by the number of elements",
    )


def questions(known: Sequence[Composition], config: HullConfig) -> list[tuple[Composition, float]]:
    """Random formulas and formation energies (eV/atom), all numbers of elements equally often.

    The chemical systems are those in which phases are known, because `PatchedPhaseDiagram` knows no others.
    """
    rng = np.random.default_rng(config.seed)
    systems: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    for system in sorted({tuple(sorted(c.get_el_amt_dict())) for c in known}):
        systems[len(system)].append(system)
    sizes = sorted(size for size in systems if size > 1)
    asked = []
    for i in range(config.num):
        chosen = systems[sizes[i % len(sizes)]]
        system = chosen[int(rng.integers(len(chosen)))]
        amounts = rng.integers(1, LARGEST_AMOUNT + 1, len(system)).tolist()
        asked.append((Composition(dict(zip(system, amounts, strict=True))), float(rng.uniform(*ENERGIES))))
    return asked


def _known(phases: ConvexHull, num_elements: int | None) -> tuple[list[Composition], list[float]]:
    compositions = [Composition(name) for name in phases.ids]
    symbols = [frozenset(composition.get_el_amt_dict()) for composition in compositions]
    counts = Counter(symbol for some in symbols for symbol in sorted(some))
    common = {symbol for symbol, _ in counts.most_common(num_elements)}
    chosen = [i for i, some in enumerate(symbols) if some <= common]
    return [compositions[i] for i in chosen], [float(phases.formation_energies_per_atom[i]) for i in chosen]


def _timed[T](work: Callable[[], T]) -> tuple[T, float]:
    """A result and the processor time in seconds that it took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        return work(), time.process_time() - start


def _each(
    distance: Callable[[Composition, float], float], asked: Sequence[tuple[Composition, float]]
) -> tuple[list[float], list[float]]:
    timed = [_timed(lambda c=c, e=e: float(distance(c, e))) for c, e in asked]
    return [value for value, _ in timed], [seconds for _, seconds in timed]


def _by_elements(
    asked: Sequence[tuple[Composition, float]], times: dict[str, list[float]]
) -> dict[str, dict[str, float]]:
    sizes = np.array([len(composition) for composition, _ in asked])
    return {
        str(size): {
            "queries": int((sizes == size).sum()),
            **{name: 1e3 * float(np.median(np.array(seconds)[sizes == size])) for name, seconds in times.items()},
        }
        for size in sorted(set(sizes.tolist()))
    }


def _table(results: dict[str, Any], config: HullConfig) -> str:
    seconds, sizes = results["seconds"], results["milliseconds_by_elements"]
    ours, theirs = seconds["druse"], seconds["pymatgen"]
    whole = markdown_table(
        ["seconds", "druse", "pymatgen", "ratio"],
        [[key, *_compared(ours[key], theirs[key])] for key in ours],
    )
    parts = markdown_table(
        ["elements", "queries", "druse, ms", "pymatgen, ms", "ratio"],
        [[size, str(row["queries"]), *_compared(row["druse"], row["pymatgen"])] for size, row in sizes.items()],
    )
    return (
        f"{config.num:,} queries, {results['phases']:,} phases, {results['chemical_systems_of_pymatgen']:,} phase "
        f"diagrams of pymatgen; the distances differ by {results['largest_difference']:.0e} eV/atom at most. Processor "
        f"time of one thread; by elements the median of a query.\n\n{whole}\n{parts}"
    )


def _compared(ours: float, theirs: float) -> list[str]:
    return [f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}"]


def picture(results: dict[str, Any]) -> Figure:
    """Median time of a query against the number of elements."""
    figure, (panel,) = canvas(width=6.0, height=3.6)
    sizes = results["milliseconds_by_elements"]
    for i, name in enumerate(("druse", "pymatgen")):
        panel.plot(list(sizes), [row[name] for row in sizes.values()], marker="o", color=COLORS[i], label=name)
    panel.set_yscale("log")
    panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("elements")
    panel.set_ylabel("milliseconds, median of a query")
    panel.legend(frameon=False)
    return figure
