"""A pilot's jobs are spread over the file, and what they cost tells what all will cost."""

import random
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from flows.runs.costs import Price
from flows.runs.estimate import StratifiedSample, by_work, share, total
from flows.runs.pilot import PilotResult, report, run_all
from pipeline.errors import Unavailable
from pipeline.job import Job
from pipeline.ports import Ports
from pipeline.record import Outcome, Status
from tests.harness.jobs import make_job

ports = cast("Ports", None)
"""Nobody asks them: `run` stands for what they do."""


def picked(count: int, of: int) -> list[int]:
    spread = StratifiedSample(count)
    for number in range(of):
        spread.add(make_job(number))
    return [job.row - 2 for job in spread.picked()]


@pytest.mark.parametrize("of", [1, 7, 20, 21, 39, 40, 41, 200, 1003])
def test_jobs_are_picked_from_every_stretch_of_the_file(of: int) -> None:
    found = picked(20, of)
    assert len(set(found)) == len(found) == min(20, of)
    assert found == sorted(found)
    assert max(np.diff([0, *found, of])) <= 4 * of / 20 + 1


def test_a_file_that_repeats_itself_is_met_in_all_its_turns() -> None:
    turns = {number % 4 for number in picked(40, 4096)}
    assert turns == {0, 1, 2, 3}


def test_rows_are_picked_evenly_from_the_whole_file() -> None:
    """The first and the last quarter of a file with a length of no power of two."""
    found = [number for count in range(10, 40) for number in picked(count, 1000)]
    first, last = sum(n < 250 for n in found), sum(n >= 750 for n in found)
    assert 0.8 < first / (len(found) / 4) < 1.2
    assert 0.8 < last / (len(found) / 4) < 1.2


def equal_costs(rng: random.Random) -> tuple[float, int]:
    return rng.gauss(3, 1), rng.choice((1, 4))


def in_proportion(rng: random.Random) -> tuple[float, int]:
    work = rng.choice((1, 2, 8, 16))
    return work * rng.uniform(0.8, 1.2), work


def mixed(rng: random.Random) -> tuple[float, int]:
    work = rng.choice((1, 4))
    return 2 + work * rng.expovariate(1), work


@pytest.mark.parametrize("population", [equal_costs, in_proportion, mixed])
def test_the_true_cost_lies_in_the_range_about_nine_times_in_ten(
    population: Callable[[random.Random], tuple[float, int]],
) -> None:
    rng, hits, near = random.Random(5), 0, 0
    for _ in range(200):
        everything = [population(rng) for _ in range(300)]
        costs, works = zip(*rng.sample(everything, 20), strict=True)
        true = sum(cost for cost, _ in everything)
        found = total(costs, works, 300, sum(work for _, work in everything))
        hits += found.low <= true <= found.high
        near += abs(found.expected / true - 1) < 0.25
    assert 0.8 * 200 < hits < 0.97 * 200
    assert near > 0.9 * 200


def test_known_work_is_used_where_it_tells_more() -> None:
    assert by_work([1.0, 2.1, 3.9], [1, 2, 4])
    assert not by_work([1.0, 1.1, 0.9], [1, 2, 4])
    found = total([1.0, 2.0, 4.0], [1, 2, 4], 100, 1000)
    assert found.expected == pytest.approx(1000)


def test_a_pilot_of_everything_knows() -> None:
    found = total([1.0, 2.0, 4.0], [1, 1, 1], 3, 3)
    assert found.expected == found.low == found.high == 7.0
    assert share(2, 3, 3).expected == share(2, 3, 3).low == share(2, 3, 3).high == 2


def test_a_share_of_nothing_may_still_be_some() -> None:
    found = share(0, 20, 1000)
    assert (found.expected, found.low) == (0, 0)
    assert 50 < found.high < 200


def flight(statuses: list[Status], seconds: float) -> PilotResult:
    jobs = [make_job(number) for number in range(len(statuses))]
    outcomes = [
        Outcome(
            run="pilot", job_id=one.id, status=status, row=one.row, keywords="",
            device_seconds={"renderer": 1.5, "judge": 0.5},
        )
        for one, status in zip(jobs, statuses, strict=True)
    ]  # fmt: skip
    return PilotResult(jobs, outcomes, 9.0, seconds, 2 * 2.0 * len(jobs))


def test_a_report_says_seconds_images_and_money() -> None:
    flown = flight([Status.ACCEPTED, Status.ACCEPTED, Status.BELOW_GATE, Status.FAILED], 4.0)
    work = sum(flown.works) * 100
    found = report(flown, 400, work, Price(3600.0, "EUR"))
    expected = {line["of"]: line["expected"] for line in found["estimates"]}
    assert expected == {
        "device_seconds": 800, "wall_seconds": 200, "accepted": 200, "cost_in_EUR": 800,
    }  # fmt: skip
    assert (found["pilot_jobs"], found["pilot_accepted"], found["pilot_failed"]) == (4, 2, 1)
    free = report(flown, 400, work, Price())
    assert [line["of"] for line in free["estimates"]] == [
        "device_seconds",
        "accepted",
        "wall_seconds",
    ]


def test_copies_fill_the_device_until_the_last_job_and_are_not_counted() -> None:
    def run(one: Job, ports: object) -> Outcome:
        time.sleep(0.5 if one.id == "j009" else 0.01)
        return Outcome(run="pilot", job_id=one.id, status=Status.ACCEPTED, row=one.row, keywords="")

    jobs = [make_job(number) for number in range(10)]
    outcomes, beside = run_all(jobs, ports, 4, run)
    assert [outcome.job_id for outcome in outcomes] == [one.id for one in jobs]
    assert len(beside) > 6, "three at a time, while the last job takes long"
    assert len({outcome.job_id for outcome in (*outcomes, *beside)}) == 10 + len(beside)


def test_a_service_that_fails_stops_a_pilot() -> None:
    def run(one: Job, ports: object) -> Outcome:
        raise Unavailable("Qdrant")

    with pytest.raises(Unavailable):
        run_all([make_job(number) for number in range(10)], ports, 4, run)
