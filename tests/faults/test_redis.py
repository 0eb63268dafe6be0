"""A Redis that dies, forgets everything, or loses messages on their way."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.errors import Unavailable
from tests.harness.cluster import IN_HAND, LIMIT, Cluster
from tests.harness.commandline import begin
from tests.harness.faulty_redis import faulty_redis
from tests.harness.redis_server import RedisServer
from workers.queue.leases import Leases, leased
from workers.queue.messages import Message, Queue

pytestmark = pytest.mark.slow

LOSSES = 3
DOWN = 0.5
"""Seconds without a Redis, fewer than a lease lasts."""


@contextmanager
def in_full_swing(cluster: Cluster) -> Iterator[None]:
    """The run in the middle of its work, by two workers; it has to end well."""
    cluster.start_worker()
    cluster.start_worker()
    with cluster.dispatching():
        cluster.wait(lambda: len(cluster.records()) > 2)
        assert len(cluster.records()) < cluster.rows - IN_HAND, "there is more to do"
        yield


def test_threads_that_publish_while_writes_are_refused_learn_that_it_is_unavailable(
    redis: RedisServer,
) -> None:
    queue, client, errors = Queue(redis.url), redis.client(), list[Exception]()

    def publish() -> None:
        for _ in range(150):
            try:
                queue.publish([Message("run", "fingerprint", 1, "job", 1, "store")] * 5)
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        client.config_set("maxmemory", 1)
        time.sleep(0.1)
        client.config_set("maxmemory", 0)
        time.sleep(0.1)
    assert errors
    assert {type(error) for error in errors} == {Unavailable}
    queue.publish([Message("run", "fingerprint", 1, "job", 1, "store")])


def test_a_run_survives_a_kill_of_redis_that_keeps_its_file(
    cluster: Cluster, redis: RedisServer
) -> None:
    with in_full_swing(cluster):
        redis.kill()
        time.sleep(DOWN)
        redis.start()
        assert redis.client().dbsize() > 0
        cluster.recover()
    cluster.verify(cluster.rows + 2 * IN_HAND)


def test_leases_are_renewed_again_after_an_outage_of_redis(redis: RedisServer) -> None:
    client = redis.client()
    leases = Leases(client, seconds=0.3)
    lease = leases.acquire("r", "e", "j")
    assert lease
    redis.kill()
    with pytest.raises(Unavailable):
        leases.acquire("r", "e", "k")
    with pytest.raises(Unavailable):
        leased(client, "r", ["j"])
    time.sleep(DOWN)
    redis.start()
    deadline = time.monotonic() + LIMIT
    while leased(client, "r", ["j"]) != {"j"}:
        assert time.monotonic() < deadline, "nobody renews the lease"
        time.sleep(0.02)
    leases.end(lease)


def test_a_run_survives_a_redis_that_loses_everything(cluster: Cluster, redis: RedisServer) -> None:
    with in_full_swing(cluster):
        redis.client().flushall()
        cluster.recover()
    cluster.verify(cluster.rows + 2 * IN_HAND)


def test_messages_lost_on_their_way_to_a_worker_are_sent_again(
    cluster: Cluster, redis: RedisServer
) -> None:
    with faulty_redis(redis.socket, LOSSES) as proxy:
        cluster.start_worker(PRESSRUN_REDIS_URL=proxy.url)
        with cluster.dispatching():
            cluster.wait(lambda: proxy.lost == LOSSES)
        cluster.verify(cluster.rows)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_survives_the_break_of_every_connection(
    cluster: Cluster, redis: RedisServer, seed: int
) -> None:
    chance, cuts = random.Random(seed), 3
    with faulty_redis(redis.socket) as proxy:
        cluster.start_worker(PRESSRUN_REDIS_URL=proxy.url)
        cluster.start_worker(PRESSRUN_REDIS_URL=proxy.url)
        with cluster.dispatching(Queue(proxy.url)):
            cluster.wait(cluster.executions)
            for _ in range(cuts):
                time.sleep(chance.uniform(0.05, 0.3))
                proxy.cut()
            cluster.recover()
        cluster.verify(cluster.rows + 2 * IN_HAND)


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_with_half_open_connections_reconnects(
    cluster: Cluster, redis: RedisServer, busy: bool
) -> None:
    with faulty_redis(redis.socket) as proxy:
        worker = cluster.start_worker(PRESSRUN_REDIS_URL=proxy.url)
        time.sleep(1)
        if not busy:
            proxy.freeze()
        with cluster.dispatching():
            if busy:
                cluster.wait(lambda: cluster.executions() == IN_HAND)
                proxy.freeze()
        assert not worker.has_ended()
        cluster.verify(cluster.rows + IN_HAND)


def test_a_run_can_be_opened_and_interrupted_while_redis_is_away(
    cluster: Cluster, redis: RedisServer, prefect_server: str
) -> None:
    cluster.start_worker()
    (cluster.workdir / "many.csv").write_text("keywords\n" + "".join(f"{n}\n" for n in range(300)))
    cluster.env |= {"PRESSRUN_SHARD": "2", "PRESSRUN_WINDOW": "4"}
    cluster.env["PREFECT_API_URL"] = prefect_server
    runs = cluster.workdir / "out" / "runs" / "many"
    words = ("many.csv", "--run", "many", "--candidates", "1")
    flow = begin("run", *words, cwd=cluster.workdir, settings=cluster.env)
    cluster.wait(lambda: any((runs / "jobs").rglob("*.parquet")))
    redis.kill()
    cluster.wait(lambda: (runs / "run.json").exists())
    time.sleep(2)
    redis.start()
    cluster.wait(lambda: any((runs / "records").glob("*.json")) or flow.poll() is not None)
    redis.kill()
    flow.send_signal(signal.SIGINT)
    time.sleep(1)
    redis.start()
    _, said = flow.communicate(timeout=LIMIT)
    assert flow.returncode == 130, said
    assert redis.client().keys("pressrun:many:*:cancelled")
