"""Which jobs are sent, and which were lost."""

import itertools

import pytest

from flows.flights import FIRST_LOOK, LONGEST_LOOK, OVERTAKEN, SILENCE, Flights
from pipeline.job import Job


def job(number: int, priority: int = 5, width: int = 64) -> Job:
    return Job(
        id=f"j{number}", row=number + 2, keywords="red circle", candidates=1, threshold=0.5,
        width=width, height=64, steps=2, guidance=1.0, seed=number, k=0, mode="keywords",
        contest="best_of", wave=1, priority=priority,
    )  # fmt: skip


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_a_window_is_filled_half_by_half() -> None:
    flights = Flights(map(job, range(10)), 0)
    assert ids(flights.take(4, 0)) == ["j0", "j1", "j2", "j3"]
    flights.ended("j0", 0)
    assert flights.take(4, 0) == []
    flights.ended("j1", 0)
    assert ids(flights.take(4, 0)) == ["j4", "j5"]


def test_urgent_jobs_go_first_and_jobs_of_one_shape_together() -> None:
    jobs = [job(0, width=64), job(1, width=32), job(2, width=64), job(3, 0)]
    assert ids(Flights(jobs, 0).take(9, 0)) == ["j3", "j1", "j0", "j2"]


def test_an_outcome_counts_once() -> None:
    flights = Flights([job(0)], 0)
    assert not flights.ended("j0", 0), "it was never sent"
    flights.take(2, 0)
    assert flights.ended("j0", 1)
    assert not flights.ended("j0", 1)
    assert not flights


def test_a_job_that_went_back_waits_and_is_sent_again() -> None:
    flights = Flights([job(0)], 0)
    flights.take(2, 0)
    assert flights.went_back("j0", 0)
    assert flights
    assert flights.take(2, 0.05) == []
    assert ids(flights.take(2, 2)) == ["j0"]


def test_looks_grow_rarer() -> None:
    flights = Flights([job(0)], 0)
    flights.take(2, 0)
    looks = [now for now in range(200) if flights.due(now)]
    gaps = [b - a for a, b in itertools.pairwise(looks)]
    assert looks[0] == FIRST_LOOK
    assert gaps == sorted(gaps)
    assert max(gaps) == LONGEST_LOOK


def test_a_job_that_a_later_one_overtook_was_lost() -> None:
    flights = Flights(map(job, range(3)), 0)
    flights.take(2, 0)
    flights.ended("j0", 1)
    flights.take(2, 1 + OVERTAKEN)
    now = 2 + OVERTAKEN
    assert flights.lost(["j1"], [], now) == []
    flights.ended("j2", now)
    assert ids(flights.lost(["j1"], [], now)) == ["j1"]
    assert flights.lost(["j1"], [], now) == [], "it has just been sent again"


@pytest.mark.parametrize("leased", [[], ["j0"]])
def test_in_silence_what_nobody_has_was_lost(leased: list[str]) -> None:
    flights = Flights(map(job, range(2)), 0)
    flights.take(2, 0)
    lost = flights.lost(["j0", "j1"], leased, SILENCE + 1)
    assert ids(lost) == ([] if leased else ["j0", "j1"]), "a lease means that somebody works"
