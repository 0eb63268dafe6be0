"""The figures of a queue in a real Redis, of a run, and the page that shows them."""

import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from redis import Redis
from structlog.testing import capture_logs

from flows.dispatch.metrics import RunMetrics
from pipeline.record import Status
from pipeline.settings import load_settings
from tests.harness.cluster import NoProgress
from tests.harness.monitored import Metrics, scrape
from tests.harness.prefect_server import free_port
from workers.observability.metrics_server import exposed
from workers.queue.backlog import Backlog
from workers.queue.messages import Message, Queue


@pytest.fixture
def empty(redis_url: str) -> Iterator[Redis]:
    """The session's Redis without messages, before and after."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        yield redis
        redis.flushall()


@pytest.mark.usefixtures("empty")
def test_the_backlog_is_told_by_priority_and_age(redis_url: str) -> None:
    queue, backlog = Queue.connect(redis_url), Backlog.of(load_settings(redis_url=redis_url))
    assert look(backlog).value("pressrun_queue_oldest_age_seconds") == 0
    queue.publish([Message("run", "e", 1, "first", 5)])
    time.sleep(0.3)
    queue.publish(
        [Message("run", "e", 1, f"j{n}", priority) for n, priority in enumerate([0, 0, 5])]
    )
    found = look(backlog)
    lengths = {n: found.value("pressrun_queue_messages", priority=str(n)) for n in range(10)}
    assert lengths == {n: {0: 2, 5: 2}.get(n, 0) for n in range(10)}
    assert 0.3 <= found.value("pressrun_queue_oldest_age_seconds") < 30
    assert found.value("pressrun_queue_unacknowledged_messages") == 0


def test_a_redis_that_is_away_leaves_only_that_to_tell() -> None:
    found = look(Backlog.of(load_settings(redis_url="redis://127.0.0.1:1")))
    assert found.value("pressrun_redis_up") == 0
    assert found.families["pressrun_queue_messages"].samples == []


def test_a_pause_is_counted_once() -> None:
    metrics = RunMetrics(NoProgress(), lambda: 3)
    for reason in ("", "down", "down", "", "down"):
        metrics.pause(reason)
    metrics.count(Status.ACCEPTED)
    found = Metrics({family.name: family for family in metrics.registry.collect()})
    assert found.value("pressrun_flow_pauses_total") == 2
    assert found.value("pressrun_flow_jobs_total", status="accepted") == 1


def test_figures_are_served_while_wanted_and_a_taken_port_stops_nothing() -> None:
    port = free_port()
    settings = load_settings(metrics_port=port)
    with exposed(settings, RunMetrics(NoProgress(), lambda: 7).registry):
        assert (found := scrape(port))
        assert found.value("pressrun_flow_rows") == 7
        with capture_logs() as said, exposed(settings, CollectorRegistry()):
            assert [(line["event"], line["address"]) for line in said] == [
                ("the figures are not served", f"127.0.0.1:{port}")
            ]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_nothing_listens_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_METRICS_PORT", "")
    assert load_settings().metrics_port == 0


def look(backlog: Backlog) -> Metrics:
    """What the queue's collector tells now."""
    return Metrics({family.name: family for family in backlog.collect()})
