"""What a whole file will cost, from what a few of its jobs have cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9
RESAMPLES = 4000

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """An estimate, and between what the true value lies in about nine of ten cases."""

    expected: float
    low: float
    high: float

    def times(self, factor: float) -> "Range":
        """The same in another unit."""
        return Range(self.expected * factor, self.low * factor, self.high * factor)


def by_work(costs: Sequence[float], works: Sequence[float]) -> bool:
    """Whether a job's known work predicts its cost better than that all cost the same."""
    y, x = np.asarray(costs, float), np.asarray(works, float)
    in_proportion = y - x * (y.sum() / x.sum())
    return bool((in_proportion**2).sum() < ((y - y.mean()) ** 2).sum())


def total(costs: Sequence[float], works: Sequence[float], all_jobs: int, all_work: float) -> Range:
    """The cost of `all_jobs` with `all_work`, from a sample: in proportion to the work where that
    predicts better (a ratio estimator), else to the number of jobs. The range is a bootstrap's.
    """
    y, x = np.asarray(costs, float), np.asarray(works, float)
    if not by_work(costs, works):
        x, all_work = np.ones_like(x), all_jobs
    expected = all_work * y.sum() / x.sum()
    rows = np.random.default_rng(0).integers(0, len(y), (RESAMPLES, len(y)))
    errors = all_work * y[rows].sum(axis=1) / x[rows].sum(axis=1) - expected
    low, high = expected + _scale(len(y), all_jobs) * np.quantile(errors, _tails())
    return Range(float(expected), max(float(low), float(y.sum())), float(high))


def share(found: int, tried: int, of: int) -> Range:
    """How many of `of` will be found, where `found` of `tried` were (Wilson's interval)."""
    z, part = NormalDist().inv_cdf(_tails()[1]), found / tried
    middle = (part + z**2 / (2 * tried)) / (1 + z**2 / tried)
    half = z / (1 + z**2 / tried) * (part * (1 - part) / tried + z**2 / (4 * tried**2)) ** 0.5
    if tried >= of:
        return Range(found, found, found)
    return Range(part * of, max(0.0, middle - half) * of, min(1.0, middle + half) * of)


def _scale(sample: int, everything: int) -> float:
    """A bootstrap's errors are too small for a small sample, and too large where it is much of all
    that there is.
    """
    left = max(0.0, 1 - sample / everything)
    return float((left * sample / max(1, sample - 1)) ** 0.5)


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2
