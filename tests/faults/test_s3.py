"""Stores that fail, lose answers, or promise what they do not keep."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.floor import Floor
from tests.faults.redis_server import RedisServer
from tests.faulty_s3 import Fault, faulty_s3, one_in
from tests.servers import S3Server, moto_s3, rclone_s3

pytestmark = pytest.mark.slow

BUCKET = "pictures"


@pytest.fixture
def sign(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Server], None]:
    """Puts a server's keys where the SDK looks for them."""

    def sign(server: S3Server) -> None:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)

    return sign


@contextmanager
def floor_on(
    server: S3Server, endpoint: str, desk: Path, redis: RedisServer, rows: int = 12
) -> Iterator[Floor]:
    """A floor whose store is a corner of a bucket, for flow and workers alike."""
    store = {
        "PRESSRUN_STORE": f"s3://{BUCKET}/{desk.name}",
        "PRESSRUN_S3_ENDPOINT_URL": endpoint,
    }
    floor = Floor(desk, redis.url, rows, env=store | server.environment())
    try:
        yield floor
    finally:
        floor.close()


@pytest.mark.parametrize("faults", [(Fault.REFUSED, Fault.DENIED), (Fault.LOST,)])
def test_every_fifth_request_fails(
    tmp_path: Path,
    redis: RedisServer,
    sign: Callable[[S3Server], None],
    faults: tuple[Fault, ...],
) -> None:
    """A 500 in place of the answer, or after the work was done, or no answer to it at all."""
    with moto_s3(BUCKET) as server, faulty_s3(server.endpoint, one_in(5, *faults)) as proxy:
        sign(server)
        with floor_on(server, proxy.endpoint, tmp_path, redis, rows=6) as floor:
            floor.hire()
            with floor.dispatching():
                pass
            floor.prove(floor.rows)
    assert 5 * sum(fault in faults for fault in proxy.faults) > len(proxy.faults) - 5


def test_a_server_that_ignores_conditions_loses_no_winner(
    tmp_path: Path, redis: RedisServer, sign: Callable[[S3Server], None]
) -> None:
    """A worker wakes on its way to the store when another one has committed its job."""
    (tmp_path / "data" / BUCKET).mkdir(parents=True)
    with rclone_s3(tmp_path / "data") as server:
        sign(server)
        with floor_on(server, server.endpoint, tmp_path, redis) as floor:
            floor.overtake()
            floor.prove(floor.rows + 1)
