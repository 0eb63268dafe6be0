"""Which jobs are sent, and which were lost."""

import itertools

import pytest

from flows.dispatch.pending import PendingJobs, Waits
from pipeline.job import Job
from tests.harness.jobs import make_job

WAITS = Waits()


def job(number: int, priority: int = 5, width: int = 64) -> Job:
    return make_job(number, id=f"j{number}", width=width, priority=priority)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_a_window_is_filled_half_by_half() -> None:
    pending = PendingJobs(map(job, range(10)), 0, WAITS)
    assert ids(pending.take(4, 0)) == ["j0", "j1", "j2", "j3"]
    pending.ended("j0", 0)
    assert pending.take(4, 0) == []
    pending.ended("j1", 0)
    assert ids(pending.take(4, 0)) == ["j4", "j5"]


def test_urgent_jobs_go_first_and_jobs_of_one_shape_together() -> None:
    jobs = [job(0, width=64), job(1, width=32), job(2, width=64), job(3, 0)]
    assert ids(PendingJobs(jobs, 0, WAITS).take(9, 0)) == ["j3", "j1", "j0", "j2"]


@pytest.mark.parametrize("setting", ["height", "references", "steps", "guidance"])
def test_jobs_that_may_share_a_batch_are_neighbours(setting: str) -> None:
    values = enumerate([3, 2, 3])
    jobs = [
        job(number).model_copy(update={"references": 1, "reference_scale": 0.5} | {setting: value})
        for number, value in values
    ]
    assert ids(PendingJobs(jobs, 0, WAITS).take(9, 0)) == ["j1", "j0", "j2"]


def test_the_scale_of_images_keeps_jobs_apart_where_it_is_0_alone() -> None:
    jobs = [
        job(number).model_copy(update={"references": 2, "reference_scale": scale, "steps": steps})
        for number, (scale, steps) in enumerate([(0.1, 9), (0.9, 3), (0.5, 9), (0.0, 9)])
    ]
    assert ids(PendingJobs(jobs, 0, WAITS).take(9, 0)) == ["j3", "j1", "j0", "j2"]


def test_a_job_ends_once() -> None:
    pending = PendingJobs([job(0)], 0, WAITS)
    assert pending
    assert not pending.ended("j0", 0), "it was never sent"
    pending.take(2, 0)
    assert pending
    assert pending.in_flight == ("j0",)
    assert pending.ended("j0", 1)
    assert not pending.ended("j0", 1)
    assert not pending


def test_a_job_that_went_back_waits_and_is_sent_again() -> None:
    pending = PendingJobs([job(0)], 0, WAITS)
    pending.take(2, 0)
    assert pending.requeued("j0", 0)
    assert pending
    assert pending.take(2, 0.05) == []
    assert ids(pending.take(2, 2)) == ["j0"]


def test_each_time_it_goes_back_a_job_may_wait_twice_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest = list[float]()

    def draw(low: float, high: float) -> float:
        longest.append(high)
        return low

    monkeypatch.setattr("flows.dispatch.pending.random.uniform", draw)
    pending = PendingJobs([job(0)], 0, WAITS)
    for now in range(8):
        assert pending.take(2, now)
        pending.requeued("j0", now)
        assert pending.take(2, now) == []
    assert longest == [
        2,
        4,
        8,
        16,
        32,
        WAITS.longest_requeue,
        WAITS.longest_requeue,
        WAITS.longest_requeue,
    ]


def test_jobs_that_went_back_count_in_the_window() -> None:
    """It shrinks to one, or none, while the breaker is open."""
    pending = PendingJobs(map(job, range(5)), 0, WAITS)
    for job_id in ids(pending.take(4, 0)):
        pending.requeued(job_id, 0)
    assert ids(pending.take(1, 2)) == ["j0"]
    assert pending.take(0, 2) == []
    pending.ended("j0", 2)
    assert ids(pending.take(3, 2)) == ["j1", "j2", "j3"]


def test_a_job_that_goes_back_breaks_the_silence() -> None:
    pending = PendingJobs(map(job, range(2)), 0, WAITS)
    pending.take(2, 0)
    pending.requeued("j0", WAITS.silence)
    assert pending.silence(WAITS.silence + 1) == 1
    assert pending.lost(["j1"], [], WAITS.silence + 1) == []


def test_a_job_in_flight_is_looked_up_at_growing_intervals() -> None:
    pending = PendingJobs([job(0)], 0, WAITS)
    pending.take(2, 0)
    looks = [now for now in range(200) if pending.due(now)]
    gaps = [b - a for a, b in itertools.pairwise(looks)]
    assert looks[0] == WAITS.first_look
    assert gaps == sorted(gaps)
    assert max(gaps) == WAITS.longest_look


def test_a_job_that_a_later_one_overtook_was_lost() -> None:
    pending = PendingJobs(map(job, range(3)), 0, WAITS)
    pending.take(2, 0)
    pending.ended("j0", 1)
    pending.take(2, 1 + WAITS.overtaken)
    now = 2 + WAITS.overtaken
    assert pending.lost(["j1"], [], now) == []
    pending.ended("j2", now)
    assert ids(pending.lost(["j1"], [], now)) == ["j1"]
    assert pending.lost(["j1"], [], now) == [], "it has just been sent again"


def test_a_job_sent_a_little_later_overtakes_nobody() -> None:
    pending = PendingJobs(map(job, range(3)), 0, WAITS)
    pending.take(2, 0)
    pending.ended("j0", WAITS.overtaken)
    pending.take(2, WAITS.overtaken)
    pending.ended("j2", WAITS.overtaken)
    assert pending.lost(["j1"], [], WAITS.overtaken) == []


def test_of_the_overtaken_those_were_lost_that_neither_ended_nor_have_a_lease() -> None:
    pending = PendingJobs(map(job, range(7)), 0, WAITS)
    pending.take(6, 0)
    for ended in ("j0", "j1", "j2"):
        pending.ended(ended, 1)
    now = 2 * WAITS.overtaken
    assert ids(pending.take(6, now)) == ["j6"]
    pending.ended("j6", now)
    pending.ended("j3", now)
    asked, leased = ["j3", "j4", "j5"], ["j4", "another shard's"]
    assert ids(pending.lost(asked, leased, now)) == ["j5"]


@pytest.mark.parametrize("leased", [[], ["j0"]])
def test_after_silence_jobs_without_a_lease_count_as_lost(leased: list[str]) -> None:
    pending = PendingJobs(map(job, range(2)), 0, WAITS)
    pending.take(2, 0)
    lost = pending.lost(["j0", "j1"], leased, WAITS.silence + 1)
    assert ids(lost) == ([] if leased else ["j0", "j1"]), "a lease means that somebody works"
