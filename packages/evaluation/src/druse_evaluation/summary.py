"""Metrics in Markdown and JSON, and the judge's own error in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from druse_evaluation.estimate import Rate
from druse_evaluation.metrics import METRICS, Measured, element_flags, failed_tests, untested
from druse_evaluation.statuses import status_counts
from druse_evaluation.table import CALIBRATED_ON, Assessment


def as_json(assessment: Assessment, measured: Sequence[Measured]) -> dict[str, Any]:
    """Metrics, judge, what became of the crystals, and tests of chemistry, as plain JSON values."""
    return {
        "metrics": {m.metric.name: {"meaning": m.metric.meaning, **m.value.as_dict()} for m in measured},
        "judge": dict(assessment.metadata),
        "status": status_counts(assessment),
        "plausibility": plausibility_as_json(assessment),
    }


def plausibility_as_json(assessment: Assessment) -> dict[str, Any]:
    """How many crystals fail which test of chemistry, have which flag, or could not be tested, as plain JSON values."""
    counted = {
        "failed_tests": failed_tests(assessment),
        "element_flags": element_flags(assessment),
        "untested": untested(assessment),
    }
    return {kind: {name: rate.as_dict() for name, rate in rates.items()} for kind, rates in counted.items()}


def plausibility_sentence(assessment: Assessment) -> str:
    """How many crystals fail which test of chemistry, in words."""
    failed = ", ".join(f"{name} {rate.count:,}" for name, rate in failed_tests(assessment).items())
    flags = ", ".join(f"{name} {rate.count:,}" for name, rate in element_flags(assessment).items())
    return f"Of {len(assessment):,} crystals fail: {failed}." + (f" Flags: {flags}." if flags else "")


def as_markdown(sets: Mapping[str, Sequence[Measured]]) -> str:
    """A Markdown table: a row for every metric, a column for every set; rates with 95 % Wilson intervals."""
    names = list(sets)
    values = {name: {m.metric.name: m.value for m in measured} for name, measured in sets.items()}
    metrics = [metric for metric in METRICS if any(metric.name in column for column in values.values())]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    requested = [next((str(v.total) for v in column.values() if isinstance(v, Rate)), "") for column in values.values()]
    lines.append(f"| requested | {' | '.join(requested)} |")
    for metric in metrics:
        cells = [str(column[metric.name]) if metric.name in column else "" for column in values.values()]
        lines.append(f"| {metric.label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def judge_sentence(metadata: Mapping[str, Any]) -> str:
    """The judge's own error, to be printed beside every stable rate."""
    judge = f"Judge: {metadata.get('judge') or 'energies as given'} against the hull {metadata.get('reference', '?')}"
    residual = metadata["residual"]
    if residual["mae"] is None:
        parts = [f"{judge}; its error on known crystals has not been measured."]
    else:
        parts = [
            f"{judge}; on {residual['n']:,} known crystals its formation energies are off by "
            f"{1000 * residual['mae']:.0f} meV/atom on average, and by less than {1000 * residual['p90']:.0f} meV/atom "
            "in 90 % of cases."
        ]
    calibrations = metadata["calibrations"]
    parts += [_calibration_sentence(CALIBRATED_ON[name], facts) for name, facts in calibrations.items()]
    if not calibrations:
        parts.append("This judge is not calibrated against DFT on new crystals: stable rates are as judged only.")
    elif len(calibrations) > 1:
        parts.append(
            "Generated crystals are the cautious end; substituted ones, computed exactly as the hull was, the hopeful."
        )
    return " ".join(parts)


def calibration_gap(assessment: Assessment) -> str:
    """How many judged crystals the calibrations leave out, and what that means for calibrated rates; empty if none."""
    n = int(assessment.uncalibrated().sum())
    if not n or not assessment.metadata.get("calibrations"):
        return ""
    left_out = (
        f"{n:,} judged {'crystal is' if n == 1 else 'crystals are'} not relaxed to convergence; the calibrations were "
        "measured on converged relaxations"
    )
    if not assessment.calibrated_on():
        return f"{left_out}, so that rates are as judged only."
    return f"{left_out}, so that calibrated rates count {'it' if n == 1 else 'them'} as not stable."


def _calibration_sentence(crystals: str, error: Mapping[str, Any]) -> str:
    if error["mean_absolute_error"] is None:
        return f"Its error against DFT ({crystals}) has not been recorded."
    bias = 1000 * error["bias"]
    sentence = (
        f"Against DFT ({error['n']:,} {crystals}) its distances to the hull are {abs(bias):.0f} meV/atom too "
        f"{'low' if bias > 0 else 'high'} (median), off by {1000 * error['mean_absolute_error']:.0f} meV/atom on "
        f"average as judged and by {1000 * error['calibrated_mean_absolute_error']:.0f} meV/atom once calibrated"
    )
    if error["precision_metastable"] is not None:
        sentence += f"; of what it calls metastable there, {100 * error['precision_metastable']:.0f} % is so"
    return sentence + "."
