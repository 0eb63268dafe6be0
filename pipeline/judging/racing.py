"""The cost and regret of races, computed from contests in which no candidate was dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from pipeline.job import Rung, Score
from pipeline.judging.contest import survivors, winner

CUTS = (0.5, 0.25)
"""Fractions of the rivals that a proposed rung may keep."""
MOST_RUNGS = 3
TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
"""Fractions of the steps at which previews are compared with the finished images."""


@dataclass(frozen=True)
class Finished:
    """A contest without drops: the previews' scores by the fraction of the steps, and the final
    ones.
    """

    previews: dict[float, Sequence[Score]]
    finals: Sequence[Score]


@dataclass(frozen=True)
class Trial:
    """The result of a race: `cost` is the fraction of all candidates' steps that it runs, `regret`
    the fraction of the best candidate's score that its winner loses.
    """

    rungs: tuple[Rung, ...]
    cost: float
    regret: float


def trial(rungs: Sequence[Rung], contests: Sequence[Finished]) -> Trial:
    """A race's mean result over contests."""
    costs, won = list[float](), list[float]()
    for contest in contests:
        left, run, before = list(range(len(contest.finals))), 0.0, 0.0
        for rung in rungs:
            run += len(left) * (rung.at - before)
            before = rung.at
            previews = contest.previews[rung.at]
            left = [left[i] for i in survivors(rung, [previews[i] for i in left])]
        run += len(left) * (1 - before)
        costs.append(run / len(contest.finals))
        won.append(_best([contest.finals[i] for i in left]))
    best = fmean(_best(contest.finals) for contest in contests)
    return Trial(tuple(rungs), fmean(costs), 1 - fmean(won) / best if best else 0)


def propose(contests: Sequence[Finished], regret: float) -> Trial:
    """The cheapest race with at most this regret; one without rungs where no other qualifies."""
    points = sorted(contests[0].previews)
    schedules = [()] + [
        tuple(Rung(at=at, keep=keep) for at in chosen)
        for count in range(1, MOST_RUNGS + 1)
        for chosen in combinations(points, count)
        for keep in CUTS
    ]
    trials = [trial(rungs, contests) for rungs in schedules]
    return min((t for t in trials if t.regret <= regret), key=lambda t: (t.cost, t.regret))


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
