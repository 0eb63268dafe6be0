"""The prior of made scores is found again, and forecasts hold on them."""

from contextlib import suppress
from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Job, Prior, Score
from pipeline.judging.priors import fit, forecast
from tests.harness.jobs import make_job

TRUE = Prior(mean=-1.5, between=3.0, within=1.0)


def made(prior: Prior, jobs: int, candidates: int, seed: int = 1) -> list[tuple[Job, list[Score]]]:
    """Jobs with scores drawn from a prior."""
    rng = np.random.default_rng(seed)
    prompts = rng.normal(prior.mean, prior.between**0.5, (jobs, 1))
    logits = prompts + rng.normal(0, prior.within**0.5, (jobs, candidates))
    return [
        (
            make_job(number, candidates=candidates),
            [Score(raw=0, calibrated=1 / (1 + exp(-each))) for each in row],
        )
        for number, row in enumerate(logits)
    ]


def test_the_prior_of_many_scores_is_found_again() -> None:
    found = fit(made(TRUE, 2000, 6))
    assert found.mean == pytest.approx(TRUE.mean, abs=0.15)
    assert found.between == pytest.approx(TRUE.between, rel=0.1)
    assert found.within == pytest.approx(TRUE.within, rel=0.1)


def test_invalid_images_are_left_out_and_uneven_jobs_bias_nothing() -> None:
    blank = Score(raw=0, calibrated=0, valid=False)
    contests = [
        (job, [*scores[: 2 + number % 5], blank])
        for number, (job, scores) in enumerate(made(TRUE, 2000, 6))
    ]
    found = fit(contests)
    assert found.mean == pytest.approx(TRUE.mean, abs=0.15)
    assert found.between == pytest.approx(TRUE.between, rel=0.15)
    assert found.within == pytest.approx(TRUE.within, rel=0.15)


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), max_size=8))
def test_a_prior_is_fitted_or_refused(values: list[list[float]]) -> None:
    contests = [(make_job(), [Score(raw=0, calibrated=v) for v in row]) for row in values]
    with suppress(ValueError):
        found = fit(contests)
        assert found.within > 0
        assert abs(found.mean) < 14


def test_forecasts_tell_what_giving_up_saves_and_costs() -> None:
    contests = made(TRUE, 400, 8)
    never, some, most = (forecast(contests, level) for level in (0.0, 0.05, 0.5))
    passing = sum(any(s.calibrated >= 0.5 for s in scores) for _, scores in contests)
    assert never.accepted == passing / len(contests)
    assert never.accepted > some.accepted > most.accepted
    assert some.accepted > 0.85 * never.accepted
    assert never.candidates_per_accepted is not None
    assert some.candidates_per_accepted is not None
    assert some.candidates_per_accepted < 0.75 * never.candidates_per_accepted


def test_without_a_passing_image_nothing_is_accepted() -> None:
    found = forecast(made(Prior(mean=-9, between=0.1, within=0.1), 8, 3), 0.0)
    assert (found.accepted, found.candidates_per_accepted) == (0, None)


def test_a_job_with_fewer_scores_than_candidates_is_forecast_by_those_it_has() -> None:
    contests = made(TRUE, 40, 4)
    fewer = [(job.model_copy(update={"candidates": 9}), scores) for job, scores in contests]
    for level in (0.0, 0.05):
        assert forecast(fewer, level) == forecast(contests, level)
