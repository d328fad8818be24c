"""One self-contained web page about an assessment: funnel, distributions, metrics, best crystals in 3D, all rows."""

import json
import math
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from druse_crystal.cif import cif_text
from druse_crystal.files import write_text
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from druse_evaluation.estimate import Average, Rate
from druse_evaluation.metrics import (
    Measured,
    calibrated_metastable_rate,
    calibrated_sun_rate,
    convergence,
    element_flags,
    failed_tests,
    match_rate,
    measure,
    metastable_rate,
    p1_rate,
    plausibility_rate,
    rmsd,
    sun_rate,
    untested,
    validity,
)
from druse_evaluation.statuses import no_crystal_sentence, status_counts
from druse_evaluation.summary import calibration_gap, judge_sentence
from druse_evaluation.table import CALIBRATED_ON, COLUMNS, Assessment
from druse_evaluation.viewer import scene

N_BEST = 9
"""Crystals drawn; a browser keeps at most sixteen three-dimensional pictures alive."""

_PLAIN = [name for name in COLUMNS if name not in ("initial", "relaxed")]
_DIRECTIONS = ("molecules or atoms (0D)", "chains (1D)", "layers (2D)", "a framework (3D)")
_SHOWN: tuple[tuple[str, str, int | None], ...] = (
    ("source", "source", None),
    ("formula", "formula", None),
    ("space_group_symbol", "space group", None),
    ("num_atoms", "atoms", 0),
    ("energy_above_hull", "above hull, eV/atom", 3),
    ("probability_metastable_generated", "P(≤ 0.1), generated", 2),
    ("probability_metastable_wbm", "P(≤ 0.1), WBM", 2),
    ("rmsd", "RMSD, Å", 3),
    ("rattled_energy_drop", "fell after a shake, eV/atom", 4),
    ("lowest_frequency", "lowest mode, THz", 2),
    ("phonons_message", "modes", None),
    ("charge_balance", "charges", None),
    ("dimensionality", "bonded in", 0),
    ("failed_tests", "fails", None),
    ("element_flags", "elements", None),
    ("unique", "unique", None),
    ("novel", "novel", None),
    ("match_id", "same as", None),
    ("prototype_id", "structure type of", None),
    ("prototype_rms", "how far from it", 3),
    ("status", "status", None),
    ("message", "message", None),
)


def write_report(
    path: str | os.PathLike,
    assessment: Assessment,
    *,
    title: str = "Crystals and what they are worth",
    manifest: Mapping[str, Any] | None = None,
    n_best: int = N_BEST,
) -> None:
    """Write ``report.html``, complete or not at all.

    Args:
        path: the file.
        assessment: the facts.
        title: heading of the page.
        manifest: how the crystals and the facts were made; shown at the end.
        n_best: how many crystals are drawn.

    Raises:
        ValueError: if the folder cannot be written to.
    """
    write_text(path, render_report(assessment, title=title, manifest=manifest, n_best=n_best))


def render_report(
    assessment: Assessment,
    *,
    title: str = "Crystals and what they are worth",
    manifest: Mapping[str, Any] | None = None,
    n_best: int = N_BEST,
) -> str:
    """The page as text; see ``write_report``."""
    from plotly.offline import get_plotlyjs

    from druse_evaluation import figures

    measured = measure(assessment)
    crystals = [_crystal_card(assessment, row) for row in assessment.ranking()[:n_best]]
    pictures = {
        "funnel": figures.funnel_figure(assessment),
        "hull": figures.hull_figure(assessment),
        "cumulative": figures.cumulative_figure(assessment),
        "elements": figures.element_figure(assessment),
        "space_groups": figures.space_group_figure(assessment),
        "rmsd": figures.rmsd_figure(assessment),
        "sizes": figures.size_figure(assessment),
        "diversity": figures.diversity_figure(assessment),
    }
    data = {
        "figures": {name: json.loads(figure.to_json()) for name, figure in pictures.items()},
        "crystals": [{key: card[key] for key in ("name", "scene", "cif")} for card in crystals],
        "table": _table(assessment),
    }
    folder = files("druse_evaluation") / "templates"
    environment = Environment(
        loader=PackageLoader("druse_evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=_subtitle(assessment),
        tiles=_tiles(assessment, measured),
        funnel_hint=_funnel_hint(manifest or {}),
        hull_hint=_hull_hint(assessment),
        gallery_hint=_gallery_hint(assessment, len(crystals)),
        symmetry_hint=f"Relaxed crystals, tolerance 0.1 Å; {p1_rate(assessment)} without any symmetry (P1).",
        cumulative_hint="Of all crystals asked for"
        + ("; diamonds: expected from DFT." if assessment.calibrated_on() else "."),
        rmsd_hint=f"Still the same structure: {match_rate(assessment)}.",
        status_hint=_status_hint(assessment),
        crystals=crystals,
        metrics=[_metric_row(m) for m in measured],
        chemistry=_chemistry_rows(assessment),
        chemistry_hint=f"{plausibility_rate(assessment)} fail none of these tests. Nothing is filtered by them.",
        judge=_judge_facts(assessment.metadata),
        calibrated_on=[CALIBRATED_ON[name] for name in assessment.metadata["calibrations"]],
        calibrations=_calibration_facts(assessment.metadata),
        judge_sentence=judge_sentence(assessment.metadata),
        calibration_gap=calibration_gap(assessment),
        provenance=json.dumps(dict(manifest or {}) | {"judge": dict(assessment.metadata)}, indent=2, default=str),
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        page_data=_embedded(data),
        plotly_js=Markup(get_plotlyjs()),
        page_js=Markup((folder / "report.js").read_text(encoding="utf-8")),
    )


def _embedded(data: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _subtitle(assessment: Assessment) -> str:
    metadata = assessment.metadata
    known = metadata.get("n_known_structures", 0)
    return (
        f"{len(assessment):,} crystals asked for, judged by {metadata.get('judge') or 'the energies given'} against "
        f"the reference {metadata.get('reference', '?')} with {known:,} known structures."
    )


def _tiles(assessment: Assessment, measured: list[Measured]) -> list[dict[str, str]]:
    available = {m.metric.name for m in measured}
    tiles = []
    if "sun" in available:
        tiles.append(_rate_tile("metastable, unique, novel — as judged", sun_rate(assessment)))
        calibrated = calibrated_sun_rate
    else:
        tiles.append(_rate_tile("metastable — as judged", metastable_rate(assessment)))
        calibrated = calibrated_metastable_rate
    rates = [calibrated(assessment, against=name) for name in assessment.calibrated_on()]
    if rates:
        tiles.append(_expected_tile(rates))
    tiles.append(_rate_tile("structure and composition valid", validity(assessment)))
    if "convergence" not in available:
        return tiles
    tiles.append(_rate_tile("relaxation converged", convergence(assessment)))
    moved = rmsd(assessment)
    tiles.append(
        {
            "label": "RMSD to the relaxed crystal",
            "value": f"{moved.mean:.2f}" if moved.n else "–",
            "of": "Å",
            "note": f"median {moved.median:.2f} Å, {moved.n} crystals" if moved.n else "no crystal relaxed",
        }
    )
    return tiles


def _rate_tile(label: str, value: Rate) -> dict[str, str]:
    low, high = value.interval
    return {
        "label": label,
        "value": f"{100 * value.value:.0f} %" if value.total else "–",
        "of": f"{_count(value)} of {value.total:,}",
        "note": f"95 % interval {100 * low:.0f} to {100 * high:.0f} %",
    }


def _expected_tile(rates: list[Rate]) -> dict[str, str]:
    """The same rate by every calibration."""
    total = rates[0].total
    return {
        "label": "the same — expected from DFT",
        "value": " – ".join(f"{100 * rate.value:.0f}" for rate in rates) + " %" if total else "–",
        "of": "",
        "note": f"{' – '.join(_count(rate) for rate in rates)} of {total:,}"
        + (", cautious – hopeful calibration" if len(rates) > 1 else ", calibrated"),
    }


def _count(value: Rate) -> str:
    return f"{value.count:,}" if float(value.count).is_integer() else f"{value.count:,.1f}"


def _funnel_hint(manifest: Mapping[str, Any]) -> str:
    """What the bars are, and what a screening left out before them."""
    screening = manifest.get("results", {}).get("screening")
    before = f" Screened before: {', '.join(f'{name} {n}' for name, n in screening.items())}." if screening else ""
    return f"Each test is applied to what passed the one before.{before}"


def _hull_hint(assessment: Assessment) -> str:
    above = assessment.values("energy_above_hull")
    above = above[~np.isnan(above)]
    if not len(above):
        return "No crystal could be put on the hull."
    return (
        f"{len(above):,} crystals with an energy; median {np.median(above):.3f} eV/atom. The outermost bars hold what "
        "lies beyond."
    )


def _gallery_hint(assessment: Assessment, n: int) -> str:
    new = assessment.flags("unique") & assessment.flags("novel") & ~np.isnan(assessment.values("energy_above_hull"))
    if new.sum() >= n:
        hint = f"The {n} unique, novel crystals that lie lowest, relaxed, as conventional cells."
    else:
        hint = (
            f"The {int(new.sum())} unique, novel crystals and, after them, the others that lie lowest; relaxed, as "
            "conventional cells."
        )
    if len(assessment.calibrated_on()) > 1:
        hint += " What is expected from DFT: calibrated on generated to calibrated on substituted crystals."
    return hint


def _status_hint(assessment: Assessment) -> str:
    counts = status_counts(assessment).items()
    hint = "Status: " + ", ".join(f"{n:,} {status.replace('_', ' ')}" for status, n in counts) + "."
    return f"{hint} {no_crystal_sentence(assessment)}".strip()


def _crystal_card(assessment: Assessment, row: int) -> dict[str, Any]:
    facts = {name: assessment.table[name][row].as_py() for name in _PLAIN}
    relaxed = assessment.relaxed(row)
    if relaxed is None:
        raise ValueError(f"crystal {row} has no relaxed structure to draw")
    drawn = scene(relaxed)
    shown = [("above hull, as judged", f"{facts['energy_above_hull']:+.3f} eV/atom")]
    calibrations = assessment.metadata["calibrations"]
    expected = [facts[f"energy_above_hull_calibrated_{name}"] for name in calibrations]
    if expected and None not in expected:
        chances = [facts[f"probability_metastable_{name}"] for name in calibrations]
        shown.append(("expected from DFT", " to ".join(f"{energy:+.3f}" for energy in expected) + " eV/atom"))
        shown.append(("P(≤ 0.1 eV/atom)", " to ".join(f"{100 * chance:.0f}" for chance in chances) + " %"))
    shown.append(("RMSD on relaxation", f"{facts['rmsd']:.3f} Å"))
    if (drop := facts["rattled_energy_drop"]) is not None:
        shown.append(("after a shake", f"{1000 * drop:.0f} meV/atom lower" if drop > 0 else "the same place"))
    if facts["lowest_frequency"] is not None:
        shown.append(("lowest mode", f"{facts['lowest_frequency']:+.2f} THz"))
    elif facts["phonons_message"]:
        shown.append(("lowest mode", facts["phonons_message"]))
    shown.append(("volume", f"{facts['volume_per_atom']:.1f} Å³/atom, {facts['num_atoms']} atoms"))
    shown += _chemistry_facts(facts)
    chips = []
    if facts["novel"] is not None:
        chips.append(("novel", "good") if facts["novel"] else (f"known: {facts['match_id']}", "warn"))
    if facts["novel"] and facts["novel_order_disorder"] is False:
        chips.append(("ordering of a known alloy", "warn"))
    if facts["novel"] and facts["novel_to_training"] is False:
        chips.append((f"in the training set: {facts['training_match_id']}", "warn"))
    if facts["new_prototype"]:
        chips.append(("new structure type", "good"))
    if facts["dynamically_stable"] is False:
        chips.append(("dynamically unstable", "bad"))
    if facts["unique"] is False:
        chips.append(("repeated", "warn"))
    if facts["status"] == "doubtful":
        chips.append(("doubtful", "bad"))
    if not facts["converged"]:
        chips.append(((facts["relaxation_status"] or "not relaxed").replace("_", " "), "bad"))
    return {
        "name": f"{facts['formula']}-{row:04d}",
        "formula": facts["formula"],
        "formula_html": _formula_html(facts["formula"]),
        "space_group": facts["space_group_symbol"],
        "space_group_html": Markup("<i>{}</i> · {}").format(facts["space_group_symbol"], facts["space_group_number"]),
        "facts": shown,
        "notes": _chemistry_notes(facts),
        "colors": [(symbol, element["color"]) for symbol, element in drawn["elements"].items()],
        "chips": chips,
        "scene": drawn,
        "cif": cif_text(relaxed),
    }


def _chemistry_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a chemist would ask about one crystal."""
    shown = [("charges", facts["charge_balance"] or "–")]
    if facts["coordination"] is not None:
        shown.append(("bonds", facts["coordination"]))
    if facts["dimensionality"] is not None:
        shown.append(("bonded in", _DIRECTIONS[facts["dimensionality"]]))
    if facts["prototype_id"] is not None:
        far = "" if facts["prototype_rms"] is None else f", sites {facts['prototype_rms']:.3f} (V/N)^(1/3) off"
        shown.append(("structure type of", f"{facts['prototype_id']}{far}"))
    return shown


def _chemistry_notes(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the crystal fails, what could not be tested and what speaks against its elements; with a colour for each."""
    kinds = (("failed_tests", "bad", "Fails "), ("untested", "soft", "Untested: "), ("element_flags", "warn", ""))
    return [
        (color, f"{start}{sentence}"[:1].upper() + f"{start}{sentence}"[1:])
        for column, color, start in kinds
        for sentence in facts[column] or ()
    ]


def _chemistry_rows(assessment: Assessment) -> list[dict[str, str]]:
    """How many crystals fail which test, could not be tested, or have which flag."""
    kinds = (("fails", failed_tests), ("untested", untested), ("elements", element_flags))
    return [
        {"kind": kind, "name": name, "count": f"{rate.count:,} / {rate.total:,}", "value": f"{100 * rate.value:.1f} %"}
        for kind, count in kinds
        for name, rate in count(assessment).items()
        if rate.total
    ]


def _formula_html(formula: str) -> Markup:
    """Subscripts for the numbers of a formula."""
    parts, digits = [], ""
    for character in formula + " ":
        if character.isdigit() or character == ".":
            digits += character
            continue
        if digits:
            parts.append(Markup("<sub>{}</sub>").format(digits))
            digits = ""
        parts.append(Markup("{}").format(character))
    return Markup("").join(parts).strip()


def _metric_row(measured: Measured) -> dict[str, Any]:
    value, metric = measured.value, measured.metric
    label = f"calibrated on {CALIBRATED_ON[metric.against]}" if metric.against else metric.label
    row = {"label": label, "under": metric.against is not None, "meaning": metric.meaning}
    if isinstance(value, Average):
        known = value.n > 0
        low, high = value.interval
        return row | {
            "count": f"{value.n:,}",
            "value": f"{value.mean:.3f} {value.unit} (median {value.median:.3f})" if known else "–",
            "interval": f"{low:.3f} to {high:.3f}" if value.n > 1 else "–",
            "share": None,
        }
    low, high = value.interval
    return row | {
        "count": f"{_count(value)} / {value.total:,}",
        "value": f"{100 * value.value:.1f} %" if value.total else "–",
        "interval": f"{100 * low:.1f} to {100 * high:.1f} %",
        "share": round(100 * value.value, 2) if value.total else 0,
        "low": round(100 * low, 2),
        "width": round(100 * (high - low), 2),
    }


def _judge_facts(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("judge", str(metadata.get("judge") or "energies as given")),
        ("reference", str(metadata.get("reference", "?"))),
    ]
    residual = metadata["residual"]
    if residual["mae"] is not None:
        facts.append(("mean error, known crystals", f"{1000 * residual['mae']:.0f} meV/atom"))
        facts.append(("90 % of errors within", f"{1000 * residual['p90']:.0f} meV/atom"))
    return facts


def _calibration_facts(metadata: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of a table of the judge's errors against DFT: a name, and a value for each calibration."""
    calibrations = metadata["calibrations"].values()
    rows = [("crystals", [f"{c['n']:,}" for c in calibrations])]
    for name, key, scale, unit in (
        ("DFT minus judged, median", "bias", 1000, "meV/atom"),
        ("mean error as judged", "mean_absolute_error", 1000, "meV/atom"),
        ("mean error once calibrated", "calibrated_mean_absolute_error", 1000, "meV/atom"),
        ("right when it says metastable", "precision_metastable", 100, "%"),
        ("metastable ones found", "recall_metastable", 100, "%"),
    ):
        rows.append((name, ["–" if c[key] is None else f"{scale * c[key]:.0f} {unit}" for c in calibrations]))
    return rows


def _table(assessment: Assessment) -> dict[str, Any]:
    columns = [assessment.table[name].to_pylist() for name in _PLAIN]
    rows = [[_short(value) for value in row] for row in zip(*columns, strict=True)]
    shown = [
        {"name": name, "label": label, "digits": digits, "meaning": COLUMNS[name][1]}
        for name, label, digits in _SHOWN
        if any(value not in (None, "", []) for value in columns[_PLAIN.index(name)])
    ]
    return {"columns": _PLAIN, "rows": rows, "shown": shown}


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join(value)
    return float(f"{value:.7g}") if isinstance(value, float) and math.isfinite(value) else value
