"""When a contest is given up: the same chance by another way, whatever the order of arrival."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.job import Job, Prior, Score
from pipeline.judging.contest import given_up, next_wave, passes
from pipeline.judging.stopping import chance, logit
from tests.harness.jobs import make_job

priors = st.builds(
    Prior, mean=st.floats(-6, 6), between=st.just(0.0) | st.floats(0.01, 30),
    within=st.floats(0.01, 30),
)  # fmt: skip
logits = st.floats(-14, 14)
judged = st.builds(
    lambda calibrated, valid: Score(raw=0, calibrated=calibrated if valid else 0, valid=valid),
    st.floats(0, 1),
    st.sampled_from([True, True, True, False]),
)
jobs = st.builds(
    lambda prior, **fields: make_job(contest="stop", prior=prior, **fields),
    priors,
    candidates=st.integers(1, 12),
    threshold=st.floats(0, 1),
    wave=st.integers(1, 4),
    stop_below=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
)
PRIOR = Prior(mean=-1.0, between=4.0, within=1.0)


def conditioned(prior: Prior, finals: list[float], threshold: float) -> float:
    """The chance by conditioning the joint Gaussian of all scores, integrated numerically."""
    count = len(finals)
    joint = np.full((count + 1, count + 1), prior.between) + prior.within * np.eye(count + 1)
    seen, cross, mean, variance = (
        joint[:count, :count],
        joint[count, :count],
        prior.mean,
        joint[-1, -1],
    )
    if count:
        gain = np.linalg.solve(seen, cross)
        mean += gain @ (np.array(finals) - prior.mean)
        variance -= gain @ cross
    spread = np.sqrt(variance)
    grid = np.linspace(threshold, max(threshold, mean) + 12 * spread, 20_001)
    density = np.exp(-0.5 * ((grid - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
    return float(np.trapezoid(density, grid))


@given(priors, st.lists(logits, max_size=12), logits)
def test_the_chance_is_that_of_the_joint_gaussian(
    prior: Prior, finals: list[float], threshold: float
) -> None:
    assert chance(prior, finals, threshold) == pytest.approx(
        conditioned(prior, finals, threshold), abs=1e-4
    )


@given(jobs, st.lists(judged, min_size=1, max_size=12))
def test_the_decision_is_that_of_the_joint_gaussian(job: Job, scores: list[Score]) -> None:
    assert job.prior
    finals = [logit(score.calibrated) for score in scores if score.valid]
    expected = conditioned(job.prior, finals, logit(job.threshold))
    if abs(expected - job.stop_below) < 1e-4:
        return
    over = any(passes(job, score) for score in scores) or len(scores) >= job.candidates
    goes_on = not over and expected >= job.stop_below
    assert bool(next_wave(job, scores[: job.candidates])) == goes_on


@given(jobs, st.lists(judged, max_size=12), st.randoms())
def test_the_order_of_arrival_decides_nothing(
    job: Job, scores: list[Score], random: Random
) -> None:
    shuffled = list(scores)
    random.shuffle(shuffled)
    assert given_up(job, scores) == given_up(job, shuffled)
    assert next_wave(job, scores[: job.candidates]) == next_wave(job, shuffled[: job.candidates])


@given(jobs, st.lists(judged, min_size=12, max_size=12))
def test_it_gives_up_no_later_than_first_above_ends_and_not_before_the_first(
    job: Job, scores: list[Score]
) -> None:
    def held(job: Job) -> int:
        done = 0
        while count := next_wave(job, scores[:done]):
            done += count
        return done

    above = held(job.model_copy(update={"contest": "first_above"}))
    assert 1 <= held(job) <= above
    assert held(job.model_copy(update={"stop_below": 0.0})) == above


def test_it_gives_up_sooner_the_farther_the_scores_are() -> None:
    job = make_job(contest="stop", prior=PRIOR, candidates=12, threshold=0.5, stop_below=0.05)

    def held(calibrated: float) -> int:
        scores = [Score(raw=0, calibrated=calibrated)] * 12
        return next(n for n in range(1, 13) if not next_wave(job, scores[:n]))

    assert [held(score) for score in (0.01, 0.12, 0.3, 0.49)] == [1, 3, 12, 12]


def test_invalid_dropped_and_unseen_candidates_tell_nothing() -> None:
    job = make_job(contest="stop", prior=PRIOR, candidates=12, stop_below=0.12)
    seen = [Score(raw=0, calibrated=0.1)]
    chance = given_up(job, seen)
    assert chance is not None
    invalid, unseen = (
        Score(raw=0, calibrated=0, valid=False),
        Score(raw=0, calibrated=0.9, final=False),
    )
    assert given_up(job, [*seen, None, invalid, unseen]) == chance


def test_a_job_without_a_prior_is_told() -> None:
    job = make_job(contest="stop", candidates=4)
    assert next_wave(job, []) == 1
    with pytest.raises(JobError, match="prior"):
        next_wave(job, [Score(raw=0, calibrated=0.1)])


def test_logits_are_finite_and_rise() -> None:
    values = [logit(score) for score in (0.0, 1e-9, 0.1, 0.5, 0.9, 1.0)]
    assert values == sorted(values)
    assert logit(0.5) == 0
    assert max(values) == pytest.approx(-min(values))
    assert max(values) < 14
