"""A cluster for each test, and dispatchers with short waits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.redis_server import RedisServer


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits of a dispatcher that looks for lost jobs."""
    for name, seconds in {
        "FIRST_LOOK": 0.5, "LONGEST_LOOK": 2.0, "OVERTAKEN": 0.5, "SILENCE": 2.0,
        "LONGEST_WAIT": 1.0,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"flows.dispatch.pending.{name}", seconds)
    monkeypatch.setattr("flows.dispatch.dispatcher.POLL", 0.2)
    monkeypatch.setattr("flows.dispatch.breaker.FIRST_PAUSE", 1.0)


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    """End every worker of a test's clusters with the test, also if it fails."""
    yield
    while Cluster.opened:
        Cluster.opened.pop().close()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def cluster(tmp_path: Path, redis: RedisServer) -> Cluster:
    """An open run without a worker yet."""
    return Cluster(tmp_path, redis.url)
