"""The threshold of a gate for a wanted precision, and a panel's weights, from winners of contests.

The best of N noisy scores overstates the chance that its image is right (the winner's curse), so
all figures are of winners of contests with the run's own N, never of candidates at random. With
labels, precision is counted. Without, it is one minus the false discovery rate of Storey ("A
direct approach to false discovery rates", 2002), whose null distribution is of contests that are
known to be wrong: the best of N scores against briefs that the image was not made for. Proteomics
calls these decoys (Elias and Gygi, "Target-decoy search strategy", 2007).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.judging.panel import logit

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST = 30
"""Winners that a threshold is found on, at least."""
LEAST_EACH = 5
"""Right ones among them, and wrong ones, at least."""
LEAST_FITTED = 50
"""Labelled winners that weights are fitted to, at least."""
RARER_FOR_EACH = 10
"""Right ones among these, and wrong ones, for each judge (Peduzzi et al., "Events per variable in
logistic regression", 1996).
"""
FOLDS = 10
RESAMPLED = 1000
NULL_CUT = 0.5
"""Quantile of the wrong contests' scores below which winners are taken as wrong ones, to estimate
their share: Storey's λ.
"""
PRIOR_SD = 2.5
"""Of a fitted weight times its judge's standard deviation, as in Gelman et al., "A weakly
informative default prior distribution for logistic regression", 2008.
"""
_CONSTANT = 1e-6
_Z = 1.959964
_DIGITS = 5


@dataclass(frozen=True)
class Gate:
    """A threshold and what it does on winners: the share of the accepted that are right, with its
    95% interval, and the share of the right that are accepted.
    """

    threshold: float
    precision: float
    interval: tuple[float, float]
    recall: float
    accepted: int
    winners: int


@dataclass(frozen=True)
class Fitted:
    """Weights by judge and the offset of a panel. `chances` are of the winners that it was fitted
    to, each by a panel that was fitted without it; `auc` is the area under their ROC curve.
    """

    weights: dict[str, float]
    offset: float
    chances: Numbers
    auc: float


def gate(chances: Sequence[float] | Numbers, right: Sequence[bool], precision: float) -> Gate:
    """The lowest threshold with this precision on labelled winners, its interval Wilson's.

    Raises RunError where too few are labelled, too few are right or wrong, or none is as precise.
    """
    scores, truth = _rounded(chances), np.asarray(right, bool)
    _check_labels(truth)
    thresholds, accepted = _accepted(scores)
    hits = _reaching(scores[truth], thresholds)
    at = _lowest(thresholds, hits / accepted, accepted, precision)
    return Gate(
        float(thresholds[at]),
        float(hits[at] / accepted[at]),
        wilson(int(hits[at]), int(accepted[at])),
        float(hits[at] / truth.sum()),
        int(accepted[at]),
        len(scores),
    )


def gate_by_contrasts(
    chances: Sequence[float] | Numbers, wrong: Sequence[float] | Numbers, precision: float
) -> tuple[Gate, float]:
    """The lowest threshold with this precision on winners without labels, and the share of the
    winners that are taken as wrong. `wrong` are scores of winners of contests that are wrong. The
    interval is a bootstrap's over both; it does not say how alike these contests are to the run's
    own faults.

    Raises RunError where there are too few of either, or no threshold is as precise.
    """
    scores, decoys = _rounded(chances), _rounded(wrong)
    if min(len(scores), len(decoys)) < LEAST:
        raise RunError(
            f"A threshold needs {LEAST} winners and {LEAST} contests of contrasts: there are"
            f" {len(scores)} and {len(decoys)}."
        )
    thresholds, accepted = _accepted(scores)
    found, share = _precision(scores, decoys, thresholds), _wrong_share(scores, decoys)
    at = _lowest(thresholds, found, accepted, precision)
    rng, again = np.random.default_rng(0), list[float]()
    for _ in range(RESAMPLED):
        drawn, false = (rng.choice(each, len(each)) for each in (scores, decoys))
        again += _precision(drawn, false, thresholds[at : at + 1]).tolist()
    low, high = np.quantile(again, [0.025, 0.975]).tolist()
    right = max(len(scores) * (1 - share), 1.0)
    recall = min(1.0, float(found[at] * accepted[at] / right))
    threshold, count = float(thresholds[at]), int(accepted[at])
    return Gate(threshold, float(found[at]), (low, high), recall, count, len(scores)), share


def fit(parts: Sequence[Mapping[str, float]], right: Sequence[bool]) -> Fitted:
    """The panel of these judges' chances, by logistic regression on their log-odds, with weights
    of at least 0. Raises RunError for too few labels.
    """
    names, truth = list(parts[0]) if parts else [], np.asarray(right, bool)
    rarer = int(min(truth.sum(), (~truth).sum()))
    wanted = RARER_FOR_EACH * len(names)
    if len(truth) < LEAST_FITTED or rarer < wanted:
        raise RunError(
            f"A panel of {len(names)} judges is fitted to {LEAST_FITTED} labelled winners with a"
            f" part of each judge, {wanted} of them right and {wanted} wrong: there are"
            f" {len(truth)}, {rarer} of the rarer kind."
        )
    odds = np.array([[logit(each[name]) for name in names] for each in parts])
    weights, offset = _regression(odds, truth)
    chances = np.empty(len(truth))
    for fold in _folds(truth):
        rest = ~np.isin(np.arange(len(truth)), fold)
        own, own_offset = _regression(odds[rest], truth[rest])
        chances[fold] = _sigmoid(odds[fold] @ own + own_offset)
    named = dict(zip(names, weights.tolist(), strict=True))
    return Fitted(named, offset, chances, auc(chances, truth))


def auc(chances: Sequence[float] | Numbers, right: Sequence[bool] | Flags) -> float:
    """The area under the ROC curve: the share of pairs of a right and a wrong winner in which the
    right one scores higher, equal scores as half a pair.
    """
    scores, truth = np.asarray(chances, float), np.asarray(right, bool)
    wrong = np.sort(scores[~truth])
    below, upto = (np.searchsorted(wrong, scores[truth], side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(wrong))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, "Probable inference", 1927)."""
    share, square = hits / count, _Z * _Z
    middle = share + square / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    scale = 1 + square / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _check_labels(truth: Flags) -> None:
    wrong, right, count = int((~truth).sum()), int(truth.sum()), len(truth)
    if count < LEAST or min(wrong, right) < LEAST_EACH:
        kind, rarer = ("wrong", wrong) if wrong < right else ("right", right)
        needed = max(LEAST, math.ceil(LEAST_EACH * count / rarer) if rarer else 2 * count)
        raise RunError(
            f"A threshold needs {LEAST} labelled winners, {LEAST_EACH} of them right and"
            f" {LEAST_EACH} wrong: there are {count}, of which {rarer} {kind}. Review about"
            f" {needed}."
        )


def _lowest(thresholds: Numbers, found: Numbers, accepted: Numbers, precision: float) -> int:
    """The place of the lowest threshold that is precise enough and accepts enough winners to tell.
    Raises RunError.
    """
    if not 0 < precision < 1:
        raise RunError(f"A precision lies between 0 and 1, and is not {precision:g}.")
    enough = math.ceil(1 / (1 - precision) - 1e-9)
    told = accepted >= enough
    if not told.any():
        raise RunError(
            f"A precision of {precision:g} is told by {enough} accepted winners, and there are"
            f" {int(accepted[0])} winners: label more, or ask for less."
        )
    fit = told & (found >= precision)
    if not fit.any():
        best = int(np.argmax(np.where(told, found, -1)))
        raise RunError(
            f"No threshold that accepts at least {enough} winners has a precision of"
            f" {precision:g}: the highest is {found[best]:.3f}, at {thresholds[best]:g}. Take other"
            " judges, more candidates, or a lower precision."
        )
    return int(np.flatnonzero(fit)[0])


def _precision(scores: Numbers, decoys: Numbers, thresholds: Numbers) -> Numbers:
    false = _wrong_share(scores, decoys) * (1 + _reaching(decoys, thresholds)) / len(decoys)
    found: Numbers = 1 - false / (_reaching(scores, thresholds).clip(1) / len(scores))
    return found.clip(0)


def _wrong_share(scores: Numbers, decoys: Numbers) -> float:
    """The share of wrong ones among winners, rather too high than too low: some of those with low
    scores are right.
    """
    cut = np.quantile(decoys, NULL_CUT)
    below = (1 + (scores <= cut).sum()) / len(scores)
    return float(min(1.0, below / (decoys <= cut).mean()))


def _accepted(scores: Numbers) -> tuple[Numbers, Numbers]:
    """The thresholds that tell these winners apart, ascending, and how many reach each."""
    thresholds = np.unique(scores)
    return thresholds, _reaching(scores, thresholds)


def _reaching(scores: Numbers, thresholds: Numbers) -> Numbers:
    found: Numbers = len(scores) - np.searchsorted(np.sort(scores), thresholds, "left").astype(
        float
    )
    return found


def _rounded(chances: Sequence[float] | Numbers) -> Numbers:
    """Scores with the digits of a threshold, never above themselves: what reaches the one reaches
    the other.
    """
    scale = 10.0**_DIGITS
    down: Numbers = np.floor(np.asarray(chances, float) * scale) / scale
    return down


def _regression(odds: Numbers, truth: Flags) -> tuple[Numbers, float]:
    """The weights, none below 0, and the offset: a judge whose weight would be negative is left
    out, and the others are fitted again.
    """
    kept, weights = np.arange(odds.shape[1]), np.zeros(odds.shape[1])
    while True:
        own, offset = _newton(odds[:, kept], truth)
        if not len(own) or own.min() >= 0:
            weights[kept] = own
            return weights, offset
        kept = np.delete(kept, own.argmin())


def _newton(odds: Numbers, truth: Flags) -> tuple[Numbers, float]:
    """Logistic regression with a Gaussian prior on the weights, by Newton's method."""
    middle, scale = odds.mean(0), odds.std(0)
    scale[scale < _CONSTANT] = 1
    design = np.column_stack([(odds - middle) / scale, np.ones(len(odds))])
    prior = np.diag([PRIOR_SD**-2] * odds.shape[1] + [1e-6])
    found = np.zeros(design.shape[1])

    def loss(at: Numbers) -> float:
        sums = design @ at
        return float(np.logaddexp(0, sums).sum() - sums @ truth + at @ prior @ at / 2)

    for _ in range(50):
        chances = _sigmoid(design @ found)
        slope = design.T @ (chances - truth) + prior @ found
        curve = design.T @ (design * (chances * (1 - chances))[:, None]) + prior
        step = np.linalg.solve(curve, slope).astype(np.float64)
        size = _damping(loss, found, step)
        found -= size * step
        if np.abs(size * step).max() < 1e-9:
            break
    weights = found[:-1] / scale
    return weights, float(found[-1] - weights @ middle)


def _damping(loss: Callable[[Numbers], float], at: Numbers, step: Numbers) -> float:
    """The largest part of a step, in halves, that does not raise the loss."""
    sizes = [0.5**power for power in range(20)]
    standing = loss(at)
    return next((size for size in sizes if loss(at - size * step) <= standing), 0.0)


def _folds(truth: Flags) -> list[NDArray[np.int64]]:
    """Places in FOLDS parts, with as many right and wrong ones in each as can be."""
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(np.flatnonzero(kind)) for kind in (truth, ~truth)]
    order = np.concatenate(shuffled)
    return [order[first::FOLDS] for first in range(FOLDS)]


def _sigmoid(sums: Numbers) -> Numbers:
    chances: Numbers = 0.5 * (1 + np.tanh(sums / 2))
    return chances
