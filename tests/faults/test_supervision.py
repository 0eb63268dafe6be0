"""Supervised workers that hang, are stopped, or lose their supervisor, at work on a run."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.cluster import IN_HAND, ROOT, WORKER, Cluster
from tests.harness.faulty_redis import faulty_redis
from tests.harness.redis_server import RedisServer

pytestmark = pytest.mark.slow

SUPERVISE = """
import os, sys
from pipeline.settings import load_settings
from workers.processes import lifecycle
silence = os.environ.get("BREAKABLE_BROKER_SILENCE", lifecycle.MAX_BROKER_SILENCE)
lifecycle.MAX_BROKER_SILENCE = float(silence)
from workers.processes.supervisor import supervise
raise SystemExit(supervise(load_settings(), ["cpu"], command=sys.argv[1:]))
"""
SICK_WORKER = (sys.executable, "-m", "tests.harness.sick_worker")
PLAIN = {"NO_COLOR": "1", "PRESSRUN_LOG_FORMAT": "console"}
SOON = 30.0
"""A limit for waits that take a few seconds on an idle machine."""


class Supervised:
    """A supervisor with one breakable worker, and its log."""

    def __init__(self, cluster: Cluster, worker: Sequence[str] = WORKER, **env: str) -> None:
        self._log = cluster.workdir / f"supervisor-{time.monotonic_ns()}.log"
        self._cluster = cluster
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, *worker],
                cwd=ROOT, env=os.environ | cluster.env | PLAIN | env,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait_for_line(self, event: str, times: int = 1) -> list[str]:
        """The log's lines about an event, once there are so many."""
        found: list[str] = self._cluster.wait(lambda: self._lines(event, times))
        return found

    def worker(self) -> int:
        """The process id of the first worker."""
        found = re.search(r"pid=(\d+)", self.wait_for_line("worker started")[0])
        assert found
        return int(found[1])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(SOON)

    def _lines(self, event: str, times: int) -> list[str]:
        plain = re.sub(r"\x1b\[\d*m", "", self._log.read_text(encoding="utf-8"))
        lines = [line for line in plain.splitlines() if event in line]
        return lines if len(lines) >= times else []


@pytest.fixture
def crew(cluster: Cluster) -> Iterator[list[Supervised]]:
    """Supervisors to end with the test."""
    crew = list[Supervised]()
    yield crew
    for one in crew:
        one.process.kill()
        one.process.wait()


def is_gone(pid: int) -> bool:
    """True once the process has ended."""
    return not Path(f"/proc/{pid}").exists()


def test_a_frozen_worker_is_killed_and_another_does_its_jobs(
    cluster: Cluster, crew: list[Supervised]
) -> None:
    cluster.arm("render", signal.SIGSTOP)
    with cluster.dispatching():
        crew.append(Supervised(cluster, PRESSRUN_HANG_SECONDS="8"))
        assert "no sign of life for" in crew[0].wait_for_line("worker killed")[0]
        crew[0].wait_for_line("worker started", 2)
    assert crew[0].stop() == 0
    cluster.verify(cluster.rows + IN_HAND)


def test_a_step_that_never_ends_is_a_hang(cluster: Cluster, crew: list[Supervised]) -> None:
    with cluster.dispatching():
        stuck = {"PRESSRUN_HANG_SECONDS": "8", "STAND_IN_SECONDS": "600"}
        crew.append(Supervised(cluster, **stuck))
        killed = crew[0].wait_for_line("worker killed")[0]
        assert re.search(r"no step for \d+ s, jobs in flight: [12]", killed)
        crew[0].stop()
        cluster.start_worker()
    cluster.verify(cluster.rows + 2 * IN_HAND)


def test_a_worker_that_its_broker_never_answers_is_killed_and_replaced(
    cluster: Cluster, crew: list[Supervised], redis: RedisServer
) -> None:
    with faulty_redis(redis.socket) as proxy:
        crew.append(Supervised(cluster, PRESSRUN_REDIS_URL=proxy.url, BREAKABLE_BROKER_SILENCE="4"))
        cluster.wait(lambda: any("ready" in line for line in cluster.log()))
        time.sleep(1)
        proxy.freeze()
        with cluster.dispatching():
            assert "no answer of its broker" in crew[0].wait_for_line("worker killed")[0]
        assert crew[0].stop() == 0
    cluster.verify(cluster.rows)


def test_a_worker_outlives_a_redis_that_is_away_for_long(
    cluster: Cluster, crew: list[Supervised], redis: RedisServer
) -> None:
    crew.append(Supervised(cluster, BREAKABLE_BROKER_SILENCE="4"))
    cluster.wait(lambda: any("ready" in line for line in cluster.log()))
    redis.kill()
    time.sleep(7)
    redis.start()
    with cluster.dispatching():
        pass
    assert crew[0].stop() == 0
    assert len(crew[0].wait_for_line("worker started")) == 1
    cluster.verify(cluster.rows)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_finishes_the_jobs_it_has_begun(
    cluster: Cluster, crew: list[Supervised], number: signal.Signals
) -> None:
    with cluster.dispatching():
        slow = {"PRESSRUN_GRACE_SECONDS": "30", "STAND_IN_SECONDS": "2"}
        crew.append(Supervised(cluster, **slow))
        cluster.wait(cluster.executions)
        assert crew[0].stop(number) == 0
        assert len(cluster.records()) == cluster.executions() <= IN_HAND
        assert any("closed" in line for line in cluster.log())
        assert crew[0].wait_for_line("it was told to stop")
        cluster.start_worker()
    cluster.verify(cluster.rows)


def test_jobs_that_cannot_finish_in_the_grace_period_are_handed_back_at_once(
    cluster: Cluster, crew: list[Supervised], redis: RedisServer
) -> None:
    with cluster.dispatching():
        slow = {"PRESSRUN_GRACE_SECONDS": "0.5", "STAND_IN_SECONDS": "60"}
        crew.append(Supervised(cluster, **slow))
        cluster.wait(cluster.executions)
        assert redis.client().keys("pressrun:run:lease:*")
        assert crew[0].stop() == 0
        assert not redis.client().keys("pressrun:run:lease:*")
        assert crew[0].wait_for_line("handed back")
        assert not cluster.records()
        cluster.start_worker()
    cluster.verify(cluster.rows + IN_HAND)


def test_a_worker_whose_supervisor_is_killed_finishes_its_jobs_and_ends(
    cluster: Cluster, crew: list[Supervised]
) -> None:
    with cluster.dispatching():
        crew.append(Supervised(cluster, PRESSRUN_GRACE_SECONDS="30", STAND_IN_SECONDS="2"))
        cluster.wait(cluster.executions)
        worker = crew[0].worker()
        crew[0].stop(signal.SIGKILL)
        start = time.monotonic()
        cluster.wait(lambda: is_gone(worker))
        assert time.monotonic() - start < SOON
        assert len(cluster.records()) == cluster.executions() <= IN_HAND
        cluster.start_worker()
    cluster.verify(cluster.rows)


def test_a_worker_that_grows_finishes_its_jobs_and_is_replaced(
    cluster: Cluster, crew: list[Supervised]
) -> None:
    with cluster.dispatching():
        crew.append(
            Supervised(cluster, PRESSRUN_WORKER_MEMORY_MB="20", PRESSRUN_GRACE_SECONDS="30")
        )
        crew[0].wait_for_line("its memory has grown to")
        crew[0].wait_for_line("worker started", 2)
        crew[0].stop()
        cluster.start_worker()
    cluster.verify(cluster.rows)


def test_workers_whose_broker_takes_no_writes_are_replaced(
    cluster: Cluster, crew: list[Supervised], redis: RedisServer
) -> None:
    crew.append(Supervised(cluster))
    with cluster.dispatching():
        cluster.wait(lambda: len(cluster.records()) > 2)
        redis.client().config_set("maxmemory", 1)
        crew[0].wait_for_line("worker ended")
        redis.client().config_set("maxmemory", 0)
        cluster.recover()
    assert crew[0].stop() == 0
    cluster.verify(cluster.rows + 2 * IN_HAND)


@pytest.mark.parametrize(
    ("illness", "reason"),
    [
        ("model", "its weights are broken"),
        ("device", "an illegal memory access"),
        ("disk", "No space left on device"),
    ],
)
def test_an_unhealthy_worker_is_replaced_and_fails_no_job(
    cluster: Cluster, crew: list[Supervised], illness: str, reason: str
) -> None:
    (cluster.workdir / f"{illness}.sick").touch()
    with cluster.dispatching():
        cluster.start_worker(STAND_IN_SECONDS="4")  # a run whose only worker is unhealthy ends
        crew.append(Supervised(cluster, SICK_WORKER))
        ended = crew[0].wait_for_line("worker ended")[0]
        assert "it is unhealthy" in ended
        assert reason in ended
    assert crew[0].stop() == 0
    cluster.verify(cluster.rows + IN_HAND)
