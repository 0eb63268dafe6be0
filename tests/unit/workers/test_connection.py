"""PRESSRUN_REDIS_URL as people write it, in one spelling for every client."""

import pytest
from kombu import Connection
from redis import Redis

from pipeline.errors import ConfigError
from workers.queue.celery_app import make_app
from workers.queue.connection import Address


@pytest.mark.parametrize(
    ("written", "url", "database"),
    [
        ("redis://h", "redis://h/0", 0),
        ("redis://h:7?db=3", "redis://h:7/3", 3),
        ("redis://:p%2Fw@h/0/", "redis://:p%2Fw@h/0", 0),
        ("redis://h/1?health_check_interval=30&client_name=x", "redis://h/1", 1),
        ("rediss://h/2?ssl_cert_reqs=required", "rediss://h/2?ssl_cert_reqs=required", 2),
        ("unix:///run/r.sock", "unix:///run/r.sock?db=0", 0),
        ("unix:///run/r.sock?db=3", "unix:///run/r.sock?db=3", 3),
    ],
)
def test_usual_addresses_mean_the_same_to_all_clients(
    written: str, url: str, database: int
) -> None:
    address = Address.of(written)
    assert address.url == url
    with address.client() as client:
        assert client.connection_pool.connection_kwargs["db"] == database
    kombu = Connection(make_app(written).conf.broker_url)
    if not url.startswith("unix:"):
        assert kombu.virtual_host == str(database)


@pytest.mark.parametrize(
    "written",
    [
        "redis://h/mydb",
        "redis://:secret/word@h/0",
        "redis://:secret#word@h/0",
        "redis://h:99999/0",
        "redis://h?db=x",
        "redis://h?health_check_interval=x",
        "redis://h?max_connections=4",
        "sentinel://h",
        "nonsense",
    ],
)
def test_other_addresses_are_refused_in_one_line_that_names_the_setting(written: str) -> None:
    with pytest.raises(ConfigError, match="PRESSRUN_REDIS_URL") as caught:
        Address.of(written)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_the_address_reach_redis_and_celery() -> None:
    written = "redis://h/1?health_check_interval=30&client_name=x"
    options = {"health_check_interval": 30, "client_name": "x"}
    client: Redis = Address.of(written).client()
    assert options.items() <= client.connection_pool.connection_kwargs.items()
    assert options.items() <= make_app(written).conf.broker_transport_options.items()
