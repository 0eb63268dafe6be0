"""The cost and regret of races and of drafts, beside those of simply fewer candidates, computed
from contests in which no candidate was dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import comb, modf
from statistics import fmean

import numpy as np

from pipeline.job import Rung, Score
from pipeline.judging.contest import best, survivors, winner

CUTS = (0.5, 0.25)
"""Fractions of the rivals that a proposed rung may keep."""
MOST_RUNGS = 3
TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
"""Fractions of the steps at which previews are compared with the finished images."""


@dataclass(frozen=True)
class Finished:
    """A contest without drops: the scores of previews, or of drafts, by the fraction of the steps,
    and the final ones.
    """

    previews: dict[float, Sequence[Score]]
    finals: Sequence[Score]


@dataclass(frozen=True)
class Trial:
    """The result of a race, or of drafts with so many `survivors`: `cost` is the fraction of what
    all candidates cost, previews and judging included; `regret` the fraction of the best
    candidate's score that its winner loses; `fewer` the regret of as many candidates without either
    as this cost pays for.
    """

    rungs: tuple[Rung, ...]
    cost: float
    regret: float
    fewer: float
    survivors: int = 0

    @property
    def loses(self) -> bool:
        """True for one that wins no more than fewer candidates at its cost."""
        return bool(self.rungs or self.survivors) and self.regret >= self.fewer


def trial(rungs: Sequence[Rung], contests: Sequence[Finished], price: float = 0.0) -> Trial:
    """A race's mean result over contests of equally many candidates; `price` is what an image costs
    to be decoded and judged, in full renders.
    """
    costs, won = list[float](), list[float]()
    for contest in contests:
        left, run, before = list(range(len(contest.finals))), 0.0, 0.0
        for rung in rungs:
            if len(left) == 1:
                break
            run += len(left) * (rung.at - before + price)
            before = rung.at
            previews = contest.previews[rung.at]
            left = [left[i] for i in survivors(rung, [previews[i] for i in left])]
        run += len(left) * (1 - before + price)
        costs.append(run / (len(contest.finals) * (1 + price)))
        won.append(_best([contest.finals[i] for i in left]))
    return _trial(fmean(costs), won, contests, tuple(rungs))


def drafted(survivors: int, contests: Sequence[Finished], price: float) -> Trial:
    """The mean result of drafts of which so many are rendered again, over contests of equally many
    candidates that have a draft each; `price` is what a draft costs, in full renders, the judging
    of both counted.
    """
    won = list[float]()
    for contest in contests:
        (drafts,) = contest.previews.values()
        won.append(_best([contest.finals[i] for i in best(survivors, drafts)]))
    cost = price + survivors / len(contests[0].finals)
    return _trial(cost, won, contests, survivors=survivors)


def _trial(
    cost: float,
    won: Sequence[float],
    contests: Sequence[Finished],
    rungs: tuple[Rung, ...] = (),
    survivors: int = 0,
) -> Trial:
    """The trial whose winners have these scores."""
    whole = fmean(_best(contest.finals) for contest in contests)
    regret = 1 - fmean(won) / whole if whole else 0.0
    fewer = regret_of(cost * len(contests[0].finals), contests)
    return Trial(rungs, cost, regret, fewer, survivors)


def regret_of(candidates: float, contests: Sequence[Finished]) -> float:
    """The mean regret of so many candidates without a race, at least 1 and at most all: exact over
    all choices of them, and between two whole numbers a mixture of both.
    """
    most = len(contests[0].finals)
    part, whole = modf(min(max(candidates, 1), most))
    lower, upper, best = (
        fmean(_best_of(int(count), contest.finals) for contest in contests)
        for count in (whole, min(whole + 1, most), most)
    )
    return 1 - ((1 - part) * lower + part * upper) / best if best else 0.0


def enough(contests: Sequence[Finished], regret: float) -> int:
    """The least number of candidates without a race that has at most this regret."""
    numbers = range(1, len(contests[0].finals) + 1)
    return next((n for n in numbers if regret_of(n, contests) <= regret), numbers[-1])


def _best_of(count: int, finals: Sequence[Score]) -> float:
    """The expected score of the best of `count` of these, drawn without replacement."""
    scores = sorted(each.calibrated if each.valid else 0.0 for each in finals)
    ways = comb(len(scores), count)
    return sum(comb(place, count - 1) * score for place, score in enumerate(scores)) / ways


def preview_price(*, plain: float, watched: float, judged: float, previews: int) -> float:
    """The price of decoding and judging an image, in full renders without either.

    `plain` are the device seconds of some candidates' renders, `watched` those with so many
    `previews` of each, and `judged` those of judging all these images and the finished ones.
    """
    decoded = max(0.0, (watched - plain) / previews)
    return (decoded + judged / (previews + 1)) / max(plain - decoded, 1e-9)


def propose(contests: Sequence[Finished], regret: float, price: float = 0.0) -> Trial:
    """The cheapest race with at most this regret that does not lose to fewer candidates, not on
    either half of the contests either, since the best of many schedules owes something to chance;
    one without rungs where no other qualifies.
    """
    points = sorted(contests[0].previews)
    schedules = [
        tuple(Rung(at=at, keep=keep) for at in chosen)
        for count in range(1, MOST_RUNGS + 1)
        for chosen in combinations(points, count)
        for keep in CUTS
    ]
    return _cheapest([partial(trial, rungs, price=price) for rungs in schedules], contests, regret)


def propose_drafts(contests: Sequence[Finished], regret: float, price: float) -> Trial:
    """The cheapest number of survivors, chosen as `propose` chooses rungs; none where no number
    qualifies.
    """
    numbers = range(1, len(contests[0].finals))
    return _cheapest([partial(drafted, n, price=price) for n in numbers], contests, regret)


def _cheapest(
    rules: Sequence[Callable[[Sequence[Finished]], Trial]],
    contests: Sequence[Finished],
    regret: float,
) -> Trial:
    """The cheapest of these that loses on no half of the contests; all candidates without any where
    there is none.
    """
    halves = [half for half in (contests[::2], contests[1::2]) if half]
    trials = [(rule(contests), rule) for rule in rules]
    fit = (
        found
        for found, rule in sorted(trials, key=lambda each: (each[0].cost, each[0].regret))
        if found.cost < 1 and found.regret <= regret and not found.loses
        if not any(rule(half).loses for half in halves)
    )
    return next(fit, trial((), contests))


def agreement(point: float, contests: Sequence[Finished]) -> float:
    """Spearman's rank correlation of previews at `point` with final scores, averaged; 0 for a
    contest where either side is constant.
    """
    correlations = []
    for contest in contests:
        scores = [[s.raw for s in side] for side in (contest.previews[point], contest.finals)]
        ranks = np.argsort(np.argsort(scores, axis=1), axis=1)
        constant = np.ptp(scores, axis=1).min() == 0
        correlations.append(0.0 if constant else float(np.corrcoef(ranks[0], ranks[1])[0, 1]))
    return fmean(correlations)


def _best(finals: Sequence[Score]) -> float:
    best = winner(finals)
    return 0.0 if best is None else finals[best].calibrated
