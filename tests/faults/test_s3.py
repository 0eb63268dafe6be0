"""Stores that fail, lose answers, or ignore conditions."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.dispatch.pending import Waits
from tests.harness.cluster import IN_HAND, Cluster
from tests.harness.commandline import answer, pressrun_here
from tests.harness.faulty_s3 import Fault, faulty_s3, one_in
from tests.harness.redis_server import RedisServer
from tests.harness.servers import S3Server, moto_s3, rclone_s3
from workers.queue.leases import TRIES

pytestmark = pytest.mark.slow

BUCKET = "images"


@pytest.fixture
def sign(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Server], None]:
    """Puts a server's keys where the SDK looks for them."""

    def sign(server: S3Server) -> None:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)

    return sign


def cluster_on(
    server: S3Server, endpoint: str, workdir: Path, redis: RedisServer, rows: int = 12
) -> Cluster:
    """A cluster with a prefix of a bucket as its store, for flow and workers alike."""
    store = {
        "PRESSRUN_STORE": f"s3://{BUCKET}/{workdir.name}",
        "PRESSRUN_S3_ENDPOINT_URL": endpoint,
    }
    return Cluster(workdir, redis.url, rows, env=store | server.environment())


@pytest.mark.parametrize(
    "faults", [(Fault.REFUSED, Fault.DENIED), (Fault.LOST,), (Fault.BUSY, Fault.LATE)]
)
def test_a_run_survives_a_store_that_fails_every_fifth_request(
    tmp_path: Path,
    redis: RedisServer,
    sign: Callable[[S3Server], None],
    faults: tuple[Fault, ...],
) -> None:
    """A 500 or 503 in its place, or a 500, nothing or a late answer after the work was done."""
    with moto_s3(BUCKET) as server, faulty_s3(server.endpoint, one_in(5, *faults)) as proxy:
        sign(server)
        cluster = cluster_on(server, proxy.endpoint, tmp_path, redis, rows=6)
        cluster.start_worker()
        with cluster.dispatching():
            pass
        cluster.verify(cluster.rows)
    assert 5 * sum(fault in faults for fault in proxy.faults) > len(proxy.faults) - 5


def test_no_record_is_overwritten_on_a_server_that_ignores_conditions(
    tmp_path: Path, redis: RedisServer, sign: Callable[[S3Server], None]
) -> None:
    """A worker wakes on its way to the store when another one has committed its job."""
    (tmp_path / "data" / BUCKET).mkdir(parents=True)
    with rclone_s3(tmp_path / "data") as server:
        sign(server)
        cluster = cluster_on(server, server.endpoint, tmp_path, redis)
        cluster.commit_while_frozen()
        cluster.verify(cluster.rows + 1)


def test_the_lease_is_confirmed_before_a_record_on_a_server_that_ignores_conditions(
    tmp_path: Path, redis: RedisServer, sign: Callable[[S3Server], None]
) -> None:
    (tmp_path / "data" / BUCKET).mkdir(parents=True)
    with rclone_s3(tmp_path / "data") as server:
        sign(server)
        cluster = cluster_on(server, server.endpoint, tmp_path, redis, rows=2)
        cluster.take_over_while_frozen()
        cluster.verify(cluster.rows + 1)


def test_refused_writes_do_not_count_as_tries_of_a_job(
    tmp_path: Path, redis: RedisServer, sign: Callable[[S3Server], None]
) -> None:
    """A case of expired credentials: a job goes back more often than it may fail."""
    refusing = threading.Event()

    def plan(method: str, path: str) -> Fault:
        return Fault.FORBIDDEN if refusing.is_set() and method == "PUT" else Fault.NONE

    with moto_s3(BUCKET) as server, faulty_s3(server.endpoint, plan) as proxy:
        sign(server)
        cluster = cluster_on(server, proxy.endpoint, tmp_path, redis, rows=4)

        def most_often() -> int:
            rendered = (event["rendered"] for event in cluster.log() if "rendered" in event)
            return max(Counter(rendered).values(), default=0)

        cluster.start_worker()
        with cluster.dispatching():
            cluster.wait(cluster.executions)
            refusing.set()
            cluster.wait(lambda: most_often() > TRIES)
            refusing.clear()
            cluster.recover()
        cluster.verify((TRIES + 1) * cluster.rows + IN_HAND)


def test_a_run_waits_while_the_store_denies_everything(
    tmp_path: Path,
    redis: RedisServer,
    prefect_server: str,
    sign: Callable[[S3Server], None],
) -> None:
    """A case of rotated credentials: once amid the jobs, once in publishing."""
    denied_until, began = 0.0, list[str]()

    def plan(method: str, path: str) -> Fault:
        nonlocal denied_until
        for name in ("/records/", "/manifest"):
            if method == "PUT" and name in path and name not in began:
                began.append(name)
                denied_until = time.monotonic() + 2 * Waits.cancel_look
        return Fault.FORBIDDEN if time.monotonic() < denied_until else Fault.NONE

    with moto_s3(BUCKET) as server, faulty_s3(server.endpoint, plan) as proxy:
        sign(server)
        cluster = cluster_on(server, proxy.endpoint, tmp_path, redis, rows=4)
        cluster.start_worker()
        cluster.env["PREFECT_API_URL"] = prefect_server
        words = ("jobs.csv", "--run", "run", "--candidates", "1", "--json")
        done = pressrun_here("run", *words, cwd=cluster.workdir, settings=cluster.env)
        assert answer(done)["accepted"] == cluster.rows, done.stderr
        assert "the run waits" in done.stderr
    assert began == ["/records/", "/manifest"]
