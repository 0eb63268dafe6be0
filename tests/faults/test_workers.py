"""Workers that die and freeze at every point of a job, and messages that come more than once."""

import os
import random
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from flows.runs.reconcile import reconcile
from tests.harness.cluster import IN_HAND, Cluster
from tests.harness.redis_server import RedisServer
from workers.queue.messages import Message, Queue

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", ["render", "after_image", "before_record", "after_record"])
def test_a_run_survives_the_kill_of_a_worker_at_each_point(cluster: Cluster, point: str) -> None:
    cluster.arm(point, signal.SIGKILL)
    cluster.start_worker()
    cluster.start_worker()
    with cluster.dispatching():
        cluster.worker_signalled_at(point)
        cluster.recover()
    # what has its record is not rendered again
    report = cluster.verify(cluster.rows + IN_HAND - (point == "after_record"))
    if point in ("after_image", "before_record"):
        assert report.duplicated >= 1, "the image without a record"


@pytest.mark.parametrize("seed", range(3))
def test_a_run_survives_kills_of_workers_at_random_moments(cluster: Cluster, seed: int) -> None:
    chance, kills = random.Random(seed), 3
    for _ in range(kills + 1):
        cluster.start_worker()
    with cluster.dispatching():
        cluster.wait(cluster.executions)
        for _ in range(kills):
            cluster.workers.pop(chance.randrange(len(cluster.workers))).kill()
            time.sleep(chance.uniform(0.05, 0.3))
    cluster.verify(cluster.rows + kills * IN_HAND)


@pytest.mark.parametrize("wakes", [False, True])
def test_a_run_survives_an_idle_worker_that_freezes(cluster: Cluster, wakes: bool) -> None:
    """The message that it was handed is lost, or comes when another one has done the job."""
    idle = cluster.start_worker()
    time.sleep(1)  # it asks the broker for a message by then
    os.kill(idle.pid, signal.SIGSTOP)
    with cluster.dispatching():
        cluster.start_worker()
        cluster.wait(lambda: len(cluster.records()) > cluster.rows // 2)
        if wakes:
            idle.proceed()
        else:
            cluster.workers.remove(idle)
            idle.kill()
    cluster.verify(cluster.rows)


def test_a_job_that_takes_longer_than_the_broker_waits_is_executed_once(
    tmp_path: Path, redis: RedisServer
) -> None:
    slow = {"BREAKABLE_VISIBILITY": "1", "STAND_IN_SECONDS": "3"}
    cluster = Cluster(tmp_path, redis.url, rows=4, env=slow)
    cluster.start_worker()
    cluster.start_worker()
    with cluster.dispatching():
        pass
    cluster.verify(cluster.rows)


def test_workers_may_have_clocks_hours_apart(cluster: Cluster) -> None:
    for hours in (-2, 0, 2):
        cluster.start_worker(BREAKABLE_CLOCK=str(3600 * hours), PRESSRUN_CONCURRENCY="1")
    with cluster.dispatching():
        pass
    worked = [line for line in cluster.log() if "recorded" in line]
    seen = {round((line["at"] - time.time()) / 3600) for line in worked}
    assert seen == {-2, 0, 2}, "each did some"
    cluster.verify(cluster.rows)


def test_a_worker_that_froze_is_refused_by_its_epoch(cluster: Cluster) -> None:
    job, epoch = cluster.take_over_while_frozen()
    cluster.verify(cluster.rows + 1)
    record = cluster.run_folder.records.outcome(job)
    assert record
    assert record.epoch > epoch > 1


def test_a_worker_that_froze_on_the_way_to_the_store_is_refused_there(cluster: Cluster) -> None:
    snapshot = cluster.commit_while_frozen()
    assert cluster.run_folder.records.outcome(snapshot.job_id) == snapshot
    cluster.verify(cluster.rows + 1)


def test_a_worker_that_froze_for_an_hour_commits_its_image_too(
    cluster: Cluster, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the run is reconciled by a fast clock, then when the lease has really expired."""
    cluster.arm("after_image", signal.SIGSTOP)
    cluster.start_worker(PRESSRUN_CONCURRENCY="1")
    leased = partial(Queue(redis.url).leased, "run")
    with cluster.dispatching():
        frozen = cluster.worker_signalled_at("after_image")
        job, real = cluster.job_of(frozen), time.time
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda: real() + 7200)
            report = reconcile(cluster.run_folder, cluster.spec, leased, read_images=False)
        assert (report.orphans_young, report.orphans_removed) == (1, 0)
        cluster.wait(lambda: not leased([job]))
        report = reconcile(cluster.run_folder, cluster.spec, leased, read_images=False, safe_age=0)
        assert report.orphans_removed == 1
        frozen.proceed()
    cluster.verify(cluster.rows)


class TriplingQueue(Queue):
    """Publishes every message three times."""

    def publish(self, messages: Iterable[Message]) -> None:
        """Three copies of each, side by side."""
        super().publish(message for message in messages for _ in range(3))


def test_messages_that_come_three_times_are_executed_once(
    cluster: Cluster, redis: RedisServer
) -> None:
    cluster.start_worker()
    cluster.start_worker()
    with cluster.dispatching(TriplingQueue(redis.url)):
        pass
    cluster.wait(lambda: not redis.messages())
    cluster.verify(cluster.rows)


def test_messages_that_come_after_their_jobs_have_ended_execute_nothing(
    cluster: Cluster, redis: RedisServer
) -> None:
    cluster.start_worker()
    cluster.start_worker()
    with cluster.dispatching():
        pass
    Queue(redis.url).publish(
        Message("run", cluster.spec.fingerprint, 1, job.id, job.priority) for job in cluster.jobs
    )
    cluster.wait(lambda: not redis.messages())
    cluster.verify(cluster.rows)


def test_a_job_that_kills_its_workers_fails_in_the_end(tmp_path: Path, redis: RedisServer) -> None:
    """The others are done."""
    cluster = Cluster(tmp_path, redis.url, rows=6, poison=1, env={"PRESSRUN_CONCURRENCY": "1"})
    with cluster.dispatching():
        for _ in range(3):
            cluster.wait(cluster.start_worker().has_ended)
        cluster.start_worker()
    (failed,) = [record for record in cluster.records() if record.status == "failed"]
    assert failed.reason == "3 executions of it ended with their worker"
    cluster.verify(cluster.rows + 3)
