"""How far is each judge from DFT, and how far does anything that is learnt from the difference carry over?

Crystals whose energy above hull was computed with DFT are relaxed and judged. Whatever is fitted (a line, a residual by
composition) is fitted without one group of crystals, a generator for example, and measured on that group; penalties are
chosen in the same way inside of what is left.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from druse_crystal import Crystal
from druse_crystal.console import Display
from druse_crystal.dataset import load_embedded
from druse_crystal.journal import Journal
from druse_crystal.manifest import Manifest
from druse_energetics.calibration import HUBER_WIDTH, JudgeError, judge_error
from druse_energetics.labelled_structures import LabelledStructures, RelaxedRow, judge_rows, relax_rows
from druse_energetics.reference import load_reference
from druse_energetics.robust import huber_fit
from druse_energetics.weights import weights_digests
from jaxtyping import Float64
from matplotlib.figure import Figure

from druse_benchmarks.drawing import COLORS, MARKED, canvas
from druse_benchmarks.record import machine_load, markdown_table, write_record

NAME = "calibration"
METASTABLE = 0.1  # eV/atom
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
MIN_CRYSTALS = 20

Design = Callable[["Judged"], Float64[np.ndarray, "b k"]]


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What is measured.

    Attributes:
        label: column of the table with the DFT energy above (or decomposition energy against) the hull, eV/atom.
        group: column by which is left out, the generator for example.
        judges: potentials. The first one relaxes the structures as given, the others go on from there.
        limit: relax so many at most, in random order; None: all.
        limit_of_others: how many of these the other judges relax.
        seed: of the order.
    """

    label: str
    group: str
    judges: tuple[str, ...] = ("sevennet-0", "sevennet-l3i5", "chgnet")
    limit: int | None = None
    limit_of_others: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Crystals that all judges in question have judged.

    Attributes:
        judged: (judges, b) energies above hull in eV/atom, each judge with its own corrections.
        dft: (b,) by DFT.
        groups: (b,) names.
        fractions: (b, 119) atomic fractions by atomic number, of the crystals as the first judge relaxed them.
    """

    judged: Float64[np.ndarray, "j b"]
    dft: Float64[np.ndarray, " b"]
    groups: np.ndarray
    fractions: Float64[np.ndarray, "b z"]

    def select(self, chosen: np.ndarray) -> "Judged":
        """Some of the crystals."""
        return Judged(
            judged=self.judged[:, chosen],
            dft=self.dft[chosen],
            groups=self.groups[chosen],
            fractions=self.fractions[chosen],
        )


def small_table(path: Path) -> Path:
    """Write a table of small known crystals, by their split, with their distances to the hull: to try this on."""
    known = load_embedded()
    small = (known.num_atoms <= 2) & np.isfinite(known.labels["energy_above_hull"])
    rows = [
        np.flatnonzero(small & (known.split == split))[: MIN_CRYSTALS // 3 + 1] for split in ("train", "val", "test")
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    known.select(np.concatenate(rows)).write(path)
    return path


def calibration(
    table: Path, config: CalibrationConfig, *, out: Path, work: Path, display: Display, manifest: Manifest
) -> Path:
    """Relax, judge, fit, and write the record.

    Args:
        table: Parquet with structures and labels, see ``LabelledStructures``.
        config: what is measured.
        out: folder of all results.
        work: keeps the relaxations; the same call continues there.
        display: shows progress.
        manifest: receives the protocol.

    Returns:
        the folder of the record.

    Raises:
        ValueError: for a table without the columns, or too few crystals or groups.
    """
    resumed = any(work.glob("*.jsonl"))
    structures = LabelledStructures.read(table)
    dft = np.array([np.nan if value is None else value for value in structures.column(config.label)], dtype=np.float64)
    groups = structures.column(config.group)
    order = np.random.default_rng(config.seed).permutation(len(structures)).tolist()[: config.limit]
    relaxed, calls = _relax(structures, order, config, work, display, manifest)
    above, reference_files = {}, {}
    for name, rows in relaxed.items():
        with manifest.stage(f"hull, {name}"):
            reference = load_reference("embedded", potential=name)
            above[name] = judge_rows(rows, reference)
        reference_files |= reference.files
        display.say(f"{name}: {len(above[name])} of {len(rows)} judged")
    first = config.judges[0]

    def together(names: Sequence[str]) -> Judged:
        rows = [row for row in order if all(row in above[name] for name in names) and np.isfinite(dft[row])]
        crystals = [relaxed[first][row].crystal for row in rows]
        return Judged(
            judged=np.array([[above[name][row] for row in rows] for name in names]).reshape(len(names), -1),
            dft=dft[rows],
            groups=np.array([str(groups[row]) for row in rows]),
            fractions=_fractions([crystal for crystal in crystals if crystal is not None]),
        )

    with manifest.stage("fits"):
        alone = together([first])
        values = predictions(alone, [first])
        rows = [_row(name, found, alone) for name, found in values.items()]
        if len(config.judges) > 1:
            data = together(config.judges)
            rows += [_row(name, found, data) for name, found in predictions(data, config.judges).items()]
    manifest.seed = config.seed
    manifest.settings |= {
        "label": config.label,
        "group": config.group,
        "judges": list(config.judges),
        "limit": config.limit,
        "limit_of_others": config.limit_of_others,
        "relaxation": "the first judge from the structures as given, the others from where it ended; FIRE, Frechet "
        "cell filter, fmax 0.05 eV/Å, at most 500 steps",
        "reference": "embedded",
        "matcher": None,  # no two crystals are compared
        "penalties": list(PENALTIES),
    }
    manifest.inputs["table"] = structures.digest
    manifest.results |= {"rows": rows, "dft": alone.dft.tolist(), "force_calls": calls}
    document: dict[str, Any] = manifest.as_dict() | {
        "times_are_of_the_last_part_only": resumed,
        "reference_files": reference_files,
        "weights": weights_digests(config.judges),
    }
    document["machine"] |= machine_load()
    return write_record(
        out,
        NAME,
        documents={NAME: document},
        table=_table(rows),
        picture=picture(alone, values),
        caption=f"Energy above hull by DFT against that by {first}: as judged, by a line, by line and composition",
    )


def _relax(
    structures: LabelledStructures,
    order: Sequence[int],
    config: CalibrationConfig,
    work: Path,
    display: Display,
    manifest: Manifest,
) -> tuple[dict[str, dict[int, RelaxedRow]], dict[str, int]]:
    """Relaxed rows of each judge, and the force calls that they took, those of earlier parts of the run included."""
    relaxed: dict[str, dict[int, RelaxedRow]] = {}
    calls = {}
    for name in config.judges:
        settings = {"potential": name, "table": structures.digest}
        if relaxed:
            first = relaxed[config.judges[0]]
            done = [row for row in order if row in first and first[row].status == "converged"]
            crystals = {row: c for row in done[: config.limit_of_others] if (c := first[row].crystal) is not None}
            settings |= {"from": config.judges[0]}
        else:
            crystals = structures.crystals(order)
        display.say(f"{name}: {len(crystals)} crystals")
        journal = Journal(work / f"{name}.jsonl", "relaxations", settings)
        with manifest.stage(f"relaxation, {name}"):
            relaxed[name] = relax_rows(name, crystals, journal)
        calls[name] = _force_calls(line for line in journal.lines if line["row"] in relaxed[name])
    return relaxed, calls


def _force_calls(lines: Iterable[Mapping[str, Any]]) -> int:
    """As many as steps and one more for each crystal, but none for one that was left without a step or an energy."""
    return sum(line["n_steps"] + 1 for line in lines if line["n_steps"] > 0 or np.isfinite(line["energy"]))


def _fractions(crystals: Sequence[Crystal]) -> Float64[np.ndarray, "b z"]:
    found = np.zeros((len(crystals), 119))
    for fractions, crystal in zip(found, crystals, strict=True):
        numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
        fractions[numbers] = counts / counts.sum()
    return found


def predictions(data: Judged, names: Sequence[str]) -> dict[str, Float64[np.ndarray, " b"]]:
    """By a name for each, what every judge says and what is fitted to them, in eV/atom.

    Raises:
        ValueError: for too few crystals or groups to leave one out.
    """
    if len(data.dft) < MIN_CRYSTALS or len(set(data.groups)) < 3:
        raise ValueError(
            f"{len(data.dft)} crystals of {len(set(data.groups))} groups are judged by {' and '.join(names)}: leaving "
            f"out one group at a time needs {MIN_CRYSTALS} of three"
        )
    found = {}
    for i, name in enumerate(names):
        one = replace(data, judged=data.judged[i : i + 1])
        found[f"{name}, as judged"] = one.judged[0]
        found |= _fitted(one, name)
    if len(names) > 1:
        found["mean of the judges"] = data.judged.mean(axis=0)
        found |= _fitted(data, "all judges")
    return found


def _fitted(data: Judged, name: str) -> dict[str, Float64[np.ndarray, " b"]]:
    return {
        f"{name}, line": left_out(data, line, (0.0,)),
        f"{name}, line and composition": left_out(data, line_and_composition, PENALTIES),
    }


def line(data: Judged) -> Float64[np.ndarray, "b k"]:
    """A constant and what the judges say."""
    return np.concatenate([np.ones((1, len(data.dft))), data.judged]).T


def line_and_composition(data: Judged) -> Float64[np.ndarray, "b k"]:
    """The same, and an offset for each element."""
    return np.concatenate([line(data), data.fractions], axis=1)


def left_out(data: Judged, design: Design, penalties: Sequence[float]) -> Float64[np.ndarray, " b"]:
    """DFT values predicted for each group by a fit to the others, its penalty chosen among these in the same way."""
    predicted = np.full(len(data.dft), np.nan)
    for group in sorted(set(data.groups)):
        train = data.select(data.groups != group)
        penalty = penalties[0]
        if len(penalties) > 1:
            errors = [np.abs(left_out(train, design, (p,)) - train.dft).mean() for p in penalties]
            penalty = penalties[int(np.argmin(errors))]
        solution = huber_fit(design(train), train.dft, width=HUBER_WIDTH, ridge=penalty)
        predicted[data.groups == group] = design(data.select(data.groups == group)) @ solution
    return predicted


def ranking(values: Float64[np.ndarray, " b"], dft: Float64[np.ndarray, " b"]) -> float | None:
    """Probability that a metastable crystal has a lower value than one that is not (area under the ROC curve)."""
    good, bad = values[dft <= METASTABLE], values[dft > METASTABLE]
    if not len(good) or not len(bad):
        return None
    return float((good[:, None] < bad).mean() + 0.5 * (good[:, None] == bad).mean())


def _row(name: str, values: Float64[np.ndarray, " b"], data: Judged) -> dict[str, Any]:
    def facts(error: JudgeError) -> dict[str, Any]:
        return {"n": error.n, "bias": error.bias, "mae": error.mae, "spread": error.spread}

    error = judge_error(values, data.dft)
    parts = {group: data.groups == group for group in sorted(set(data.groups))}
    return {
        "name": name,
        **facts(error),
        "precision": dict(error.precision),
        "recall": dict(error.recall),
        "judged": dict(error.judged),
        "dft": dict(error.dft),
        "ranking": ranking(values, data.dft),
        "groups": {group: facts(judge_error(values[part], data.dft[part])) for group, part in parts.items()},
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.0f} %"

    body = [
        [
            row["name"],
            f"{row['n']:,}",
            f"{1000 * row['bias']:+.0f}",
            f"{1000 * row['mae']:.0f}",
            f"{1000 * row['spread']:.0f}",
            *(f"{percent(row['precision'][key])} / {percent(row['recall'][key])}" for key in ("0.1", "0")),
            f"{percent(row['judged']['0.1'])} / {percent(row['dft']['0.1'])}",
            "–" if row["ranking"] is None else f"{row['ranking']:.3f}",
        ]
        for row in rows
    ]
    header = [
        *("judge", "n", "bias", "mean error", "spread", "precision / recall at 0.1", "at 0"),
        *("share ≤ 0.1: judged / DFT", "ranking"),
    ]
    groups = list(rows[0]["groups"])
    parts = [[row["name"], *(_of_group(row, group) for group in groups)] for row in rows]
    return (
        "Errors in meV/atom: bias is the median of DFT minus judged, spread 1.4826 times the median absolute deviation "
        "from it; precision and recall of what lies at most so many eV/atom above the hull; ranking is the area under "
        "the ROC curve at 0.1 eV/atom. Lines and compositions are fitted without the group on which they are measured. "
        f"Where n is smaller, only crystals that all judges have relaxed count.\n\n{markdown_table(header, body)}\n"
        f"Bias and mean error by group:\n\n{markdown_table(['judge', *groups], parts)}"
    )


def _of_group(row: Mapping[str, Any], group: str) -> str:
    error = row["groups"].get(group)
    return "–" if error is None else f"{1000 * error['bias']:+.0f}, {1000 * error['mae']:.0f}"


def picture(data: Judged, values: Mapping[str, Float64[np.ndarray, " b"]]) -> Figure:
    """DFT against each of the values, each group of its own colour."""
    figure, panels = canvas(len(values), 1, width=11.0, height=4.0)
    for panel, (title, found) in zip(panels, values.items(), strict=True):
        for i, group in enumerate(sorted(set(data.groups))):
            part = data.groups == group
            panel.plot(found[part], data.dft[part], "o", markersize=2.5, alpha=0.6, color=COLORS[i], label=group)
        panel.plot([-0.3, 1.2], [-0.3, 1.2], color=MARKED, linewidth=1, linestyle=":")
        panel.set_xlim(-0.3, 1.2)
        panel.set_ylim(-0.3, 1.2)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("energy above hull, eV/atom")
    panels[0].set_ylabel("DFT, eV/atom")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
