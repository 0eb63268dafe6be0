"""A budget admits what still fits beside what is in flight, and no more."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.dispatch.budget import FIRST, Budget
from pipeline.job import Job
from tests.harness.jobs import make_job


def spend(budget: Budget, jobs: list[Job], window: int, each: float, spread: float) -> int:
    """Run jobs whose candidates cost about `each`, with so many in flight; how many were done."""
    rng, waiting, in_flight, done = random.Random(7), deque(jobs), deque[Job](), 0
    while not budget.used_up and (waiting or in_flight):
        while waiting and len(in_flight) < window and budget.admit(waiting[0]):
            in_flight.append(waiting.popleft())
        if in_flight:
            ended = in_flight.popleft()
            cost = each * ended.candidates * rng.uniform(1 - spread, 1 + spread)
            budget.ended(ended.id, cost)
            done += 1
    return done


def test_without_a_budget_everything_is_admitted() -> None:
    budget = Budget()
    assert spend(budget, [make_job(n) for n in range(200)], 64, 1.0, 0.5) == 200
    assert not budget.used_up


@pytest.mark.parametrize("seconds", [5.0, 30.0, 100.0, 333.0])
@pytest.mark.parametrize(("spread", "off"), [(0.0, 1.0), (0.9, 16.0)])
def test_what_is_used_comes_close_to_the_budget(seconds: float, spread: float, off: float) -> None:
    budget = Budget(seconds)
    done = spend(budget, [make_job(n) for n in range(1000)], 64, 1.0, spread)
    assert budget.used_up
    assert done < 1000
    assert seconds - off <= budget.spent < seconds + off, "64 in flight cost 64 on average"


def test_larger_jobs_that_come_last_are_taken_to_cost_more() -> None:
    budget = Budget(100.0)
    jobs = [make_job(n, candidates=1 if n < 50 else 16) for n in range(150)]
    spend(budget, jobs, 64, 1.0, 0.2)
    assert 80 < budget.spent < 105


def test_while_no_cost_is_known_only_a_few_are_begun() -> None:
    budget = Budget(1000.0)
    assert [budget.admit(make_job(n)) for n in range(FIRST + 2)] == [True] * FIRST + [False] * 2
    assert not budget.used_up
    budget.ended("j000", 1.0)
    assert all(budget.admit(make_job(n)) for n in range(10, 40))


def test_jobs_that_cost_nothing_tell_nothing() -> None:
    budget = Budget(10.0)
    assert budget.admit(make_job(0))
    budget.ended("j000", 0.0)
    assert sum(budget.admit(make_job(n)) for n in range(1, 50)) == FIRST


def test_a_job_that_went_back_makes_room() -> None:
    budget = Budget(9.0)
    for number in range(2):
        assert budget.admit(make_job(number))
    budget.ended("j000", 1.0)
    assert not budget.admit(make_job(2)), "1 known, and 5 times 2 at most"
    budget.requeued("j001")
    assert budget.admit(make_job(2))


def test_a_budget_that_is_used_up_stays_so() -> None:
    budget = Budget(0.0)
    assert not budget.admit(make_job(0))
    assert budget.used_up
    assert not budget.admit(make_job(1))


@given(
    passing=st.lists(st.booleans(), max_size=60),
    quota=st.integers(0, 40),
    before=st.integers(0, 10),
    window=st.integers(1, 16),
    seconds=st.none() | st.floats(0, 30),
    random=st.randoms(use_true_random=False),
)
def test_a_quota_is_never_exceeded_and_is_met_where_enough_pass(
    passing: list[bool],
    quota: int,
    before: int,
    window: int,
    seconds: float | None,
    random: random.Random,
) -> None:
    budget = Budget(seconds, quota)
    budget.accepted = before
    waiting, in_flight = deque(make_job(n) for n in range(len(passing))), list[Job]()
    while not budget.used_up and (waiting or in_flight):
        while waiting and len(in_flight) < window and budget.admit(waiting[0]):
            in_flight.append(waiting.popleft())
        assert budget.accepted + len(in_flight) <= max(quota, before)
        if in_flight:
            job = in_flight.pop(random.randrange(len(in_flight)))
            if random.random() < 0.2:
                budget.requeued(job.id)
                waiting.append(job)
            else:
                budget.ended(job.id, 1.0, accepted=passing[job.row - 2])
    if seconds is None:
        assert budget.accepted == max(before, min(quota, before + sum(passing)))
        assert budget.quota_met == (budget.accepted >= quota)
    else:
        # each job costs one second, and is estimated at that once the first has ended
        assert budget.spent <= max(FIRST, seconds)
