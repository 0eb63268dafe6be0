"""The prospects of a contest: the chance that its next candidate passes, given the scores of those
before. Plain Python, no device.

The model is a Gaussian random effect: the logit of a calibrated score is the prior's mean, plus an
effect of the prompt, plus one of the seed. Candidates of one prompt share the first, so that each
score tells something of the next one (the normal-normal model of Gelman et al., "Bayesian Data
Analysis", 3rd ed., 5.4).
"""

from collections.abc import Sequence
from math import fsum, log, sqrt
from statistics import NormalDist

from pipeline.job import Prior

CLOSEST = 1e-6
"""Distance from 0 and 1 that scores are taken to have at least: their logits are finite then."""

_STANDARD = NormalDist()


def logit(score: float) -> float:
    """The logit of a calibrated score, in -13.8..13.8."""
    inside = min(max(score, CLOSEST), 1 - CLOSEST)
    return log(inside / (1 - inside))


def chance(prior: Prior, finals: Sequence[float], threshold: float) -> float:
    """The chance that the next candidate reaches the threshold, given those of the same prompt.

    `finals` and `threshold` are logits. The order of the finals has no influence, not even by
    rounding.
    """
    total = len(finals) * prior.between + prior.within
    mean = prior.mean + prior.between * fsum(each - prior.mean for each in finals) / total
    variance = prior.between * prior.within / total + prior.within
    return _STANDARD.cdf((mean - threshold) / sqrt(variance))
