"""Workers that die and freeze at every point of a job, and messages that come more than once."""

import os
import random
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from flows.reconcile import reconcile
from tests.faults.floor import IN_HAND, Floor
from tests.faults.redis_server import RedisServer
from workers.queue import Message, Queue

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", ["render", "after_image", "before_record", "after_record"])
def test_a_worker_is_killed(floor: Floor, point: str) -> None:
    floor.hang(point, signal.SIGKILL)
    floor.hire()
    floor.hire()
    with floor.dispatching():
        floor.fallen(point)
        floor.recover()
    # what has its record is not rendered again
    report = floor.prove(floor.rows + IN_HAND - (point == "after_record"))
    if point in ("after_image", "before_record"):
        assert report.duplicated >= 1, "the image without a record"


@pytest.mark.parametrize("seed", range(3))
def test_workers_are_killed_at_any_moment(floor: Floor, seed: int) -> None:
    chance, kills = random.Random(seed), 3
    floor.hire()
    floor.hire()
    with floor.dispatching():
        floor.wait(floor.executions)
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 0.3))
            floor.workers.pop(chance.randrange(2)).kill()
            floor.hire()
        floor.recover()
    floor.prove(floor.rows + kills * IN_HAND)


@pytest.mark.parametrize("wakes", [False, True])
def test_a_worker_froze_while_it_had_nothing_to_do(floor: Floor, wakes: bool) -> None:
    """The message that it was handed is lost, or comes when another one has done the job."""
    idle = floor.hire()
    time.sleep(1)  # it asks the broker for a message by then
    os.kill(idle.pid, signal.SIGSTOP)
    with floor.dispatching():
        floor.hire()
        floor.wait(lambda: len(floor.records()) > floor.rows // 2)
        if wakes:
            idle.proceed()
        else:
            floor.workers.remove(idle)
            idle.kill()
    floor.prove(floor.rows)


def test_a_job_that_takes_longer_than_the_broker_waits_is_executed_once(
    tmp_path: Path, redis: RedisServer
) -> None:
    slow = {"BREAKABLE_VISIBILITY": "1", "STAND_IN_SECONDS": "3"}
    floor = Floor(tmp_path, redis.url, rows=4, env=slow)
    floor.hire()
    floor.hire()
    with floor.dispatching():
        pass
    floor.prove(floor.rows)


def test_workers_whose_clocks_are_hours_apart(floor: Floor) -> None:
    for hours in (-2, 0, 2):
        floor.hire(BREAKABLE_CLOCK=str(3600 * hours), PRESSRUN_CONCURRENCY="1")
    with floor.dispatching():
        pass
    worked = [line for line in floor.log() if "recorded" in line]
    seen = {round((line["at"] - time.time()) / 3600) for line in worked}
    assert seen == {-2, 0, 2}, "each did some"
    floor.prove(floor.rows)


def test_a_worker_that_froze_is_refused_by_its_epoch(floor: Floor) -> None:
    job, epoch = floor.take_over()
    floor.prove(floor.rows + 1)
    record = floor.run_folder.records.outcome(job)
    assert record
    assert record.epoch > epoch > 1


def test_a_worker_that_froze_on_the_way_to_the_store_is_refused_there(floor: Floor) -> None:
    standing = floor.overtake()
    assert floor.run_folder.records.outcome(standing.job_id) == standing
    floor.prove(floor.rows + 1)


def test_a_worker_that_froze_for_an_hour_commits_its_image_too(
    floor: Floor, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile its books are proven where the clock is fast, then when its time is really over."""
    floor.hang("after_image", signal.SIGSTOP)
    floor.hire(PRESSRUN_CONCURRENCY="1")
    leased = partial(Queue(redis.url).leased, "run")
    with floor.dispatching():
        frozen = floor.fallen("after_image")
        job, real = floor.job_of(frozen), time.time
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda: real() + 7200)
            report = reconcile(floor.run_folder, floor.spec, leased, read_images=False)
        assert (report.orphans_young, report.orphans_removed) == (1, 0)
        floor.wait(lambda: not leased([job]))
        report = reconcile(floor.run_folder, floor.spec, leased, read_images=False, safe_age=0)
        assert report.orphans_removed == 1
        frozen.proceed()
    floor.prove(floor.rows)


class Thrice(Queue):
    """Publishes every message three times."""

    def publish(self, messages: Iterable[Message]) -> None:
        """Three copies of each, side by side."""
        super().publish(message for message in messages for _ in range(3))


def test_messages_that_come_three_times_are_executed_once(floor: Floor, redis: RedisServer) -> None:
    floor.hire()
    floor.hire()
    with floor.dispatching(Thrice(redis.url)):
        pass
    floor.wait(lambda: not redis.messages())
    floor.prove(floor.rows)


def test_messages_that_come_after_their_jobs_have_ended_execute_nothing(
    floor: Floor, redis: RedisServer
) -> None:
    floor.hire()
    floor.hire()
    with floor.dispatching():
        pass
    Queue(redis.url).publish(
        Message("run", floor.spec.fingerprint, 1, job.id, job.priority) for job in floor.jobs
    )
    floor.wait(lambda: not redis.messages())
    floor.prove(floor.rows)


def test_a_job_that_takes_its_worker_along_fails_in_the_end(
    tmp_path: Path, redis: RedisServer
) -> None:
    """The others are done."""
    floor = Floor(tmp_path, redis.url, rows=6, poison=1, env={"PRESSRUN_CONCURRENCY": "1"})
    with floor.dispatching():
        for _ in range(3):
            floor.wait(floor.hire().has_ended)
        floor.hire()
    (failed,) = [record for record in floor.records() if record.status == "failed"]
    assert failed.reason == "3 executions of it ended with their worker"
    floor.prove(floor.rows + 3)
