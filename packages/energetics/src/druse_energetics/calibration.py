"""How far a judge is from DFT: the error of a judged energy above hull, measured on crystals whose DFT value is known.

A universal potential is most accurate where it was trained, at the equilibrium of known materials, and too low
elsewhere (systematic softening: Deng et al., npj Comput. Mater. 11, 9 (2025)). New crystals are elsewhere. A
``Calibration`` is a straight line for the DFT value given the judged one, and the distribution of what remains; with it
a judged distance becomes a probability to lie below a threshold under DFT.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from druse_crystal.files import replacing
from jaxtyping import Float64

from druse_energetics.robust import huber_fit

Values = float | Sequence[float] | np.ndarray

CALIBRATED_AGAINST = ("generated", "wbm")
THRESHOLDS = (0.0, 0.025, 0.05, 0.1)  # eV/atom
HUBER_WIDTH = 0.05  # eV/atom
N_QUANTILES = 101
_SPREAD_FLOOR = 0.01  # eV/atom


@dataclass(frozen=True, kw_only=True)
class JudgeError:
    """Error of a judge on crystals that had no part in the fit. Energies in eV/atom; a rate is None without a case.

    Attributes:
        n: number of crystals.
        bias: median of DFT minus judged.
        mae: mean absolute difference.
        spread: 1.4826 times the median absolute deviation of the difference from its median.
        precision: threshold -> of the crystals judged at or below it, the share that is so under DFT.
        recall: threshold -> of the crystals at or below it under DFT, the share judged so.
        judged: threshold -> share of all crystals judged at or below it.
        dft: threshold -> share of all crystals at or below it under DFT.
    """

    n: int
    bias: float
    mae: float
    spread: float
    precision: Mapping[str, float | None]
    recall: Mapping[str, float | None]
    judged: Mapping[str, float]
    dft: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The DFT energy above hull given the judged one: ``intercept + slope x + spread(x) q``, q from ``quantiles``.

    ``spread(x) = spread_intercept + spread_slope max(x, 0)``, and ``x`` is not let below ``floor``, where hardly any
    crystal was measured. The distribution is that of the crystals it was measured on. Among crystals of which a larger
    share is stable the true probability is larger.

    Attributes:
        potential: the judge.
        against: what DFT data it was measured against.
        intercept: eV/atom.
        slope: of the DFT value on the judged one.
        spread_intercept: eV/atom.
        spread_slope: growth of the spread with the judged distance.
        quantiles: of the standardised remainder, at equally spaced probabilities from 0 to 1.
        floor: eV/atom, 1st percentile of the judged values.
        raw: error of the judged value itself.
        calibrated: error of ``predicted_dft``, cross-validated by group.
        rates: threshold -> sum of cross-validated probabilities / n, to be compared with ``raw.dft``.
        groups: per group, the error of the judged value itself.
        provenance: data, settings, versions.
    """

    potential: str
    against: str
    intercept: float
    slope: float
    spread_intercept: float
    spread_slope: float
    quantiles: Sequence[float]
    floor: float
    raw: JudgeError
    calibrated: JudgeError
    rates: Mapping[str, float]
    groups: Mapping[str, JudgeError] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def predicted_dft(self, energy_above_hull: Values) -> float | np.ndarray:
        """Expected (median) DFT energy above hull in eV/atom for a judged one; float or array as given."""
        x = self._inside(energy_above_hull)
        median = float(np.median(self.quantiles))
        return _like(energy_above_hull, self.intercept + self.slope * x + self._spread(x) * median)

    def probability(self, energy_above_hull: Values, threshold: float = 0.1) -> float | np.ndarray:
        """Probability that the DFT value is at or below ``threshold`` (eV/atom); float or array as given."""
        x = self._inside(energy_above_hull)
        standardised = (threshold - self.intercept - self.slope * x) / self._spread(x)
        levels = np.linspace(0, 1, len(self.quantiles))
        probability = np.interp(standardised, self.quantiles, levels, left=0.0, right=1.0)
        return _like(energy_above_hull, np.where(np.isnan(x), np.nan, probability))

    def write(self, path: str | os.PathLike) -> None:
        """Write as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, path) -> "Calibration":
        """Read what ``write`` wrote."""
        content = json.loads(Path(str(path)).read_text())
        errors = {key: JudgeError(**content.pop(key)) for key in ("raw", "calibrated")}
        groups = {name: JudgeError(**error) for name, error in content.pop("groups").items()}
        return cls(**content, **errors, groups=groups)

    def _inside(self, energy_above_hull: Values) -> np.ndarray:
        return np.asarray(np.maximum(np.asarray(energy_above_hull, dtype=np.float64), self.floor))

    def _spread(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.spread_intercept + self.spread_slope * np.maximum(x, 0.0))


def fit_calibration(
    judged: Sequence[float] | np.ndarray,
    dft: Sequence[float] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    potential: str,
    against: str,
    provenance: Mapping[str, object] | None = None,
) -> Calibration:
    """Fit the line and the distribution around it; measure both leaving out one group at a time.

    Args:
        judged: (b,) energies above hull by the judge, in eV/atom; NaN = leave out.
        dft: (b,) by DFT.
        groups: (b,) names, e.g. the generator of each crystal.
        potential: the judge.
        against: a word for the data.
        provenance: kept with the result.

    Raises:
        ValueError: if lengths disagree, fewer than 50 crystals are left, or there is only one group.
    """
    judged, dft, groups = np.asarray(judged, np.float64), np.asarray(dft, np.float64), np.asarray(groups, np.str_)
    if not judged.shape == dft.shape == groups.shape:
        raise ValueError(f"{judged.size} judged values, {dft.size} DFT values and {groups.size} groups must be as many")
    known = np.isfinite(judged) & np.isfinite(dft)
    judged, dft, groups = judged[known], dft[known], groups[known]
    names = sorted(set(groups.tolist()))
    if len(judged) < 50 or len(names) < 2:
        raise ValueError(f"{len(judged)} crystals of {len(names)} groups: a calibration needs 50 of at least two")

    predicted = np.full(len(judged), np.nan)
    probabilities = {threshold: np.full(len(judged), np.nan) for threshold in THRESHOLDS}
    for name in names:
        test = groups == name
        part = _assemble(_fit(judged[~test], dft[~test]), potential, against)
        predicted[test] = part.predicted_dft(judged[test])
        for threshold in THRESHOLDS:
            probabilities[threshold][test] = part.probability(judged[test], threshold)
    return _assemble(
        _fit(judged, dft),
        potential,
        against,
        raw=judge_error(judged, dft),
        calibrated=judge_error(predicted, dft),
        rates={_key(t): round(float(p.mean()), 4) for t, p in probabilities.items()},
        groups={name: judge_error(judged[groups == name], dft[groups == name]) for name in names},
        provenance=dict(provenance or {}),
    )


def judge_error(judged: Float64[np.ndarray, " b"], dft: Float64[np.ndarray, " b"]) -> JudgeError:
    """Bias, mean absolute error, spread, precision and recall of judged energies above hull (eV/atom)."""
    difference = dft - judged
    bias = float(np.median(difference))
    low_judged = {t: judged <= t for t in THRESHOLDS}
    low_dft = {t: dft <= t for t in THRESHOLDS}
    return JudgeError(
        n=len(judged),
        bias=round(bias, 4),
        mae=round(float(np.abs(difference).mean()), 4),
        spread=round(float(1.4826 * np.median(np.abs(difference - bias))), 4),
        precision={_key(t): _share(low_dft[t], low_judged[t]) for t in THRESHOLDS},
        recall={_key(t): _share(low_judged[t], low_dft[t]) for t in THRESHOLDS},
        judged={_key(t): round(float(low_judged[t].mean()), 4) for t in THRESHOLDS},
        dft={_key(t): round(float(low_dft[t].mean()), 4) for t in THRESHOLDS},
    )


def load_calibration(potential: str, against: str = "generated") -> Calibration | None:
    """The shipped calibration of a potential on the embedded hull, or None if it was never measured."""
    path = files("druse_energetics") / "data" / f"calibration-{potential}-{against}.json"
    return Calibration.read(path) if path.is_file() else None


def _fit(judged: np.ndarray, dft: np.ndarray) -> dict:
    """Huber line, spread that grows with the judged distance, quantiles of the standardised remainder."""
    design = np.stack([np.ones_like(judged), judged], axis=1)
    line = huber_fit(design, dft, width=HUBER_WIDTH)
    remainder = dft - design @ line
    # mean absolute remainder as a line in the distance, never falling with it
    growth = np.stack([np.ones_like(judged), np.maximum(judged, 0.0)], axis=1)
    size = np.linalg.lstsq(growth, np.abs(remainder), rcond=None)[0]
    if size[1] < 0:
        size = np.array([np.abs(remainder).mean(), 0.0])
    size[0] = max(size[0], _SPREAD_FLOOR)
    quantiles = np.quantile(remainder / (growth @ size), np.linspace(0, 1, N_QUANTILES))
    return {
        "intercept": round(float(line[0]), 5),
        "slope": round(float(line[1]), 5),
        "spread_intercept": round(float(size[0]), 5),
        "spread_slope": round(float(size[1]), 5),
        "quantiles": [round(float(q), 4) for q in np.maximum.accumulate(quantiles)],
        "floor": round(float(np.percentile(judged, 1)), 4),
    }


def _assemble(fitted: dict, potential: str, against: str, **measured) -> Calibration:
    nothing = JudgeError(n=0, bias=np.nan, mae=np.nan, spread=np.nan, precision={}, recall={}, judged={}, dft={})
    defaults = {"raw": nothing, "calibrated": nothing, "rates": {}}
    return Calibration(potential=potential, against=against, **fitted, **(defaults | measured))


def _share(hits: np.ndarray, cases: np.ndarray) -> float | None:
    return round(float(hits[cases].mean()), 4) if cases.any() else None


def _key(threshold: float) -> str:
    return f"{threshold:g}"


def _like(given: Values, values) -> float | np.ndarray:
    return float(values) if np.ndim(given) == 0 else values
