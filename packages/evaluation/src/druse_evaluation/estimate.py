"""A share or a mean, with the 95 % interval of what was sampled."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float64

Z_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Rate:
    """So many of so many.

    Attributes:
        count: how many; a sum of probabilities makes it fractional.
        total: of how many.
    """

    count: int | float
    total: int

    @property
    def value(self) -> float:
        """The share, NaN of nothing."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of the share (E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)).

        For a sum of probabilities it is an upper bound of the sampling error; the error of the probabilities themselves
        is not in it.
        """
        if not self.total:
            return 0.0, 1.0
        n, p, z2 = self.total, self.value, Z_95**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z_95 / (1 + z2 / n) * math.sqrt(max(p * (1 - p) / n + z2 / (4 * n * n), 0.0))
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "count": self.count,
            "total": self.total,
            "value": _number(self.value),
            "interval_95": list(self.interval),
        }

    def __str__(self) -> str:
        low, high = self.interval
        if not self.total:
            return "no crystals"
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class Average:
    """Mean and median of a quantity over the crystals that have it.

    Attributes:
        mean: mean, NaN without values.
        median: median, NaN without values.
        standard_error: of the mean, NaN with fewer than two values.
        n: number of values.
        unit: of the values.
    """

    mean: float
    median: float
    standard_error: float
    n: int
    unit: str

    @classmethod
    def of(cls, values: Float64[np.ndarray, " rows"], unit: str) -> "Average":
        """Over the values that are not NaN."""
        values = values[~np.isnan(values)]
        if len(values) == 0:
            return cls(math.nan, math.nan, math.nan, 0, unit)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        return cls(float(values.mean()), float(np.median(values)), error, len(values), unit)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean, normal approximation."""
        return self.mean - Z_95 * self.standard_error, self.mean + Z_95 * self.standard_error

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "mean": _number(self.mean),
            "median": _number(self.median),
            "interval_95": [_number(x) for x in self.interval],
            "n": self.n,
            "unit": self.unit,
        }

    def __str__(self) -> str:
        if not self.n:
            return "no values"
        return (
            f"{self.mean:.3f} ± {Z_95 * self.standard_error:.3f} {self.unit}, median {self.median:.3f}"
            if self.n > 1
            else f"{self.mean:.3f} {self.unit}"
        )


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value
