"""The prior of a contest of `stop`, fitted to contests in which all candidates were rendered, and
what each `stop_below` would have cost and kept there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean

from pipeline.job import Job, Prior, Score
from pipeline.judging.contest import next_wave, passes
from pipeline.judging.stopping import logit

LEAST = 8
"""Contests that a prior is fitted to, at least: half of them forecast the other half."""
LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Values of `stop_below` that are compared; at 0 `stop` never gives up."""

Contests = Sequence[tuple[Job, Sequence[Score]]]
"""Jobs with the scores of all their candidates."""


@dataclass(frozen=True)
class Forecast:
    """The result of contests of `stop` at one `stop_below`: the share of the jobs with a candidate
    that passes, and the candidates rendered in all for each of these, None where there are none.
    """

    stop_below: float
    accepted: float
    candidates_per_accepted: float | None


def fit(contests: Contests) -> Prior:
    """The prior of these jobs' scores, by the analysis of variance of one random effect (Searle,
    Casella and McCulloch, "Variance Components", 1992, ch. 3): invalid images, and those
    that not all judges saw, are left out.

    Raises ValueError where fewer than two jobs have valid images, or no job has two that differ.
    """
    found = [
        [logit(each.calibrated) for each in scores if each.valid and each.final]
        for _, scores in contests
    ]
    groups = [group for group in found if group]
    count, jobs = sum(map(len, groups)), len(groups)
    if jobs < 2 or count == jobs:
        raise ValueError("fewer than two jobs have valid images, or none has two")
    means = [fmean(group) for group in groups]
    grand = fsum(map(fsum, groups)) / count
    within = fsum(
        (each - mean) ** 2 for group, mean in zip(groups, means, strict=True) for each in group
    ) / (count - jobs)
    if not within:
        raise ValueError("all images of a job have the same score")
    squares = fsum(len(g) * (mean - grand) ** 2 for g, mean in zip(groups, means, strict=True))
    size = (count - fsum(len(group) ** 2 for group in groups) / count) / (jobs - 1)
    between = max(0.0, (squares / (jobs - 1) - within) / size)
    weights = [1 / (between + within / len(group)) for group in groups]
    mean = fsum(w * m for w, m in zip(weights, means, strict=True)) / fsum(weights)
    return Prior(mean=mean, between=between, within=max(within, 1e-6))


def forecast(contests: Contests, stop_below: float) -> Forecast:
    """The result of `stop` on these jobs: each half under the prior of the other one, and each
    contest begun at each of its candidates. Raises ValueError as `fit`.
    """
    rendered, kept, held = 0, 0, 0
    for own, other in ((contests[::2], contests[1::2]), (contests[1::2], contests[::2])):
        rule = {"contest": "stop", "prior": fit(other), "stop_below": stop_below}
        for asked, scores in own:
            # an image that the renderer dropped has no score
            job = asked.model_copy(update={**rule, "candidates": len(scores)})
            for first in range(len(scores)):
                seen = _held(job, [*scores[first:], *scores[:first]])
                rendered, held = rendered + len(seen), held + 1
                kept += any(passes(job, score) for score in seen)
    return Forecast(stop_below, kept / held, rendered / kept if kept else None)


def _held(job: Job, scores: Sequence[Score]) -> Sequence[Score]:
    """The scores up to the end of a contest whose candidates come in this order."""
    done = 0
    while count := next_wave(job, scores[:done]):
        done += count
    return scores[:done]
