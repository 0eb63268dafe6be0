"""The sample of a job file for a pilot, and estimates for the whole file from it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pipeline.job import Job

LEVEL = 0.9
RESAMPLES = 4000

Numbers = NDArray[np.float64]


class StratifiedSample:
    """A stratified sample of `count` jobs in one pass and little memory: the file is divided into
    blocks of equal length and one random job is kept from each, so a repeating pattern is covered.
    Equal files give equal samples.
    """

    def __init__(self, count: int) -> None:
        self._count, self._block = count, 1
        self._kept = list[Job]()
        self._candidate: Job | None = None
        self._seen = 0
        self._random = random.Random(count)

    def add(self, job: Job) -> None:
        """Add the next job of the file."""
        self._seen += 1
        if self._random.randrange(self._seen) == 0:
            self._candidate = job
        if self._seen == self._block:
            assert self._candidate
            self._kept.append(self._candidate)
            self._candidate, self._seen = None, 0
        if len(self._kept) == 2 * self._count:
            # merge neighbouring blocks: each keeps one of its two jobs at random
            pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
            self._kept = [self._random.choice(pair) for pair in pairs]
            self._block *= 2

    def picked(self) -> list[Job]:
        """The sample so far in file order: `count` jobs, or all if there are fewer."""
        found = [*self._kept, *([self._candidate] if self._candidate else [])]
        count = min(self._count, len(found))
        bounds = [len(found) * place // count for place in range(count + 1)] if count else []
        return [self._random.choice(found[begin:end]) for begin, end in pairwise(bounds)]


@dataclass(frozen=True)
class Range:
    """An estimate with its 90% interval."""

    expected: float
    low: float
    high: float

    def times(self, factor: float) -> "Range":
        """The estimate in another unit."""
        return Range(self.expected * factor, self.low * factor, self.high * factor)


def by_work(costs: Sequence[float], works: Sequence[float]) -> bool:
    """True if costs in proportion to the work fit better than equal costs."""
    y, x = np.asarray(costs, float), np.asarray(works, float)
    in_proportion = y - x * (y.sum() / x.sum())
    return bool((in_proportion**2).sum() < ((y - y.mean()) ** 2).sum())


def total(costs: Sequence[float], works: Sequence[float], all_jobs: int, all_work: float) -> Range:
    """The cost of `all_jobs` with `all_work`, from a sample: in proportion to the work if that fits
    better (a ratio estimator), else to the number of jobs. The interval is a bootstrap's.
    """
    y, x = np.asarray(costs, float), np.asarray(works, float)
    if not by_work(costs, works):
        x, all_work = np.ones_like(x), all_jobs
    expected = all_work * y.sum() / x.sum()
    rows = np.random.default_rng(0).integers(0, len(y), (RESAMPLES, len(y)))
    errors = all_work * y[rows].sum(axis=1) / x[rows].sum(axis=1) - expected
    # a bootstrap's errors are too small for a small sample, and too large for a large share of all
    left = max(0.0, 1 - len(y) / all_jobs)
    scale = float((left * len(y) / max(1, len(y) - 1)) ** 0.5)
    low, high = expected + scale * np.quantile(errors, _tails())
    return Range(float(expected), max(float(low), float(y.sum())), float(high))


def share(found: int, tried: int, of: int) -> Range:
    """The expected number out of `of`, given `found` out of `tried` (Wilson's interval)."""
    z, part = NormalDist().inv_cdf(_tails()[1]), found / tried
    middle = (part + z**2 / (2 * tried)) / (1 + z**2 / tried)
    half = z / (1 + z**2 / tried) * (part * (1 - part) / tried + z**2 / (4 * tried**2)) ** 0.5
    if tried >= of:
        return Range(found, found, found)
    return Range(part * of, max(0.0, middle - half) * of, min(1.0, middle + half) * of)


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2
