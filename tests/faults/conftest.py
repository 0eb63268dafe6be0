"""A cluster for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.redis_server import RedisServer


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
