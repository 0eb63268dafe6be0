"""Leases on a real Redis."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NoReturn

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from workers.queue.leases import (
    LEASE_SECONDS,
    TRIES,
    Fenced,
    Leases,
    cancel_key,
    lease_key,
    leased,
)

MakeLeases = Callable[..., Leases]


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def worker(redis: Redis) -> Iterator[MakeLeases]:
    """Makes the leases of one more worker; all are given back in the end."""
    made = list[Leases]()

    def make(seconds: float = LEASE_SECONDS) -> Leases:
        made.append(Leases(redis, seconds))
        return made[-1]

    yield make
    redis.flushall()
    for leases in made:
        for lease in leases.held:
            leases.end(lease)


def test_a_job_has_one_holder_until_it_ends(redis: Redis, worker: MakeLeases) -> None:
    one, other = worker(), worker()
    lease = one.acquire("r", "e", "j")
    assert lease
    assert other.acquire("r", "e", "j") is None
    assert leased(redis, "r", ["j", "k"]) == {"j"}
    one.end(lease)
    assert other.acquire("r", "e", "j")
    assert one.held == ()


def test_each_lease_has_a_higher_epoch_and_an_ended_one_leaves_no_tries(
    redis: Redis, worker: MakeLeases
) -> None:
    leases, epochs = worker(), []
    for _ in range(TRIES + 2):
        lease = leases.acquire("r", "e", "j")
        assert lease
        assert lease.tries == 1
        epochs.append(lease.epoch)
        leases.end(lease)
    assert epochs == sorted(set(epochs))


def test_charged_ends_and_lost_holders_count(redis: Redis, worker: MakeLeases) -> None:
    leases = worker(seconds=0.2)
    first = leases.acquire("r", "e", "j")
    assert first
    leases.end(first, charged=True)
    lost = leases.acquire("r", "e", "j")
    assert lost
    assert lost.tries == 2
    redis.delete(lease_key("r", "j"))
    third = leases.acquire("r", "e", "j")
    assert third
    assert third.tries == 3


def test_an_end_forgets_the_tries_of_its_job_alone(redis: Redis, worker: MakeLeases) -> None:
    leases = worker()
    charged, lease = leases.acquire("r", "e", "charged"), leases.acquire("r", "e", "j")
    assert charged
    assert lease
    leases.end(charged, charged=True)
    redis.delete(lease_key("r", "j"))  # it ran out, and nobody wanted the job
    leases.end(lease)
    again = [leases.acquire("r", "e", job) for job in ("charged", "j")]
    assert [lease.tries for lease in again if lease] == [2, 1]


def test_runs_share_neither_leases_nor_tries(redis: Redis, worker: MakeLeases) -> None:
    leases = worker()
    assert leases.acquire("r", "e", "j")
    other = leases.acquire("other", "e", "j")
    assert other
    assert other.tries == 1


def test_a_lease_is_fresh_for_half_of_its_time(
    worker: MakeLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = worker(seconds=60).acquire("r", "e", "j")
    assert lease
    assert lease.fresh
    now = time.monotonic() + 31
    monkeypatch.setattr("workers.queue.leases.time", SimpleNamespace(monotonic=lambda: now))
    assert not lease.fresh
    lease.confirm()
    assert lease.fresh
    lease.leases.end(lease)
    assert not lease.fresh


def test_a_lease_runs_out_unless_it_is_kept(redis: Redis, worker: MakeLeases) -> None:
    lease = worker(seconds=60).acquire("r", "e", "j")
    assert lease
    assert 0 < redis.pttl(lease_key("r", "j")) <= 60_000
    redis.persist(lease_key("r", "j"))
    lease.confirm()
    assert 0 < redis.pttl(lease_key("r", "j")) <= 60_000


def test_the_heartbeat_keeps_a_lease_alive(redis: Redis, worker: MakeLeases) -> None:
    leases = worker(seconds=1)
    assert leases.acquire("r", "e", "j")
    time.sleep(1.5)
    assert leased(redis, "r", ["j"]) == {"j"}


def test_a_stale_holder_is_fenced(redis: Redis, worker: MakeLeases) -> None:
    frozen, awake = worker(seconds=60), worker()
    stale = frozen.acquire("r", "e", "j")
    assert stale
    redis.delete(lease_key("r", "j"))  # it ran out
    fresh = awake.acquire("r", "e", "j")
    assert fresh
    assert fresh.epoch > stale.epoch
    with pytest.raises(Fenced):
        stale.confirm()
    fresh.confirm()
    frozen.end(stale)
    assert leased(redis, "r", ["j"]) == {"j"}, "a stale end takes nobody's lease away"


def test_a_lease_that_redis_lost_is_taken_again(redis: Redis, worker: MakeLeases) -> None:
    lease = worker().acquire("r", "e", "j")
    assert lease
    redis.flushall()
    lease.confirm()
    assert leased(redis, "r", ["j"]) == {"j"}


def test_a_cancelled_fingerprint_has_no_leases(redis: Redis, worker: MakeLeases) -> None:
    redis.set(cancel_key("r", "e"), "1")
    leases = worker()
    assert leases.acquire("r", "e", "j") is None
    assert leases.acquire("r", "other", "j")


def test_a_stale_end_leaves_the_tries_of_the_one_who_took_over(
    redis: Redis, worker: MakeLeases
) -> None:
    frozen, awake = worker(seconds=60), worker()
    stale = frozen.acquire("r", "e", "j")
    assert stale
    redis.delete(lease_key("r", "j"))
    fresh = awake.acquire("r", "e", "j")
    assert fresh
    frozen.end(stale)
    awake.end(fresh, charged=True)
    third = awake.acquire("r", "e", "j")
    assert third
    assert third.tries == 3


def test_notes_are_written_whoever_has_the_lease_and_the_oldest_go(
    redis: Redis, worker: MakeLeases
) -> None:
    frozen, awake = worker(seconds=60), worker()
    stale = frozen.acquire("r", "e", "j")
    assert stale
    redis.delete(lease_key("r", "j"))
    assert awake.acquire("r", "e", "j")
    for number in range(400):
        frozen.end_soon(stale, "notes", 10, {"number": str(number)})
    frozen.flush(10)
    assert 10 <= redis.xlen("notes") < 400
    assert redis.xrevrange("notes", count=1)[0][1] == {"number": "399"}
    assert leased(redis, "r", ["j"]) == {"j"}


def test_what_ends_soon_is_no_longer_held_and_ends_with_its_note(
    redis: Redis, worker: MakeLeases
) -> None:
    leases, jobs = worker(seconds=60), [f"j{number}" for number in range(20)]
    for job in jobs:
        lease = leases.acquire("r", "e", job)
        assert lease
        leases.end_soon(lease, "notes", 100, {"job": job})
    assert leases.held == ()
    leases.flush(10)
    assert leased(redis, "r", jobs) == set()
    assert [fields["job"] for _, fields in redis.xrange("notes")] == jobs
    assert worker().acquire("r", "e", "j0")


def test_ends_that_find_no_redis_are_given_up(
    redis: Redis, worker: MakeLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = worker(seconds=60)
    first, second = leases.acquire("r", "e", "first"), leases.acquire("r", "e", "second")
    assert first
    assert second

    def down(**_: object) -> NoReturn:
        raise RedisConnectionError("down")

    with monkeypatch.context() as outage:
        outage.setattr(redis, "pipeline", down)
        leases.end_soon(first, "notes", 100, {"job": "first"})
        leases.flush(10)
    leases.end_soon(second, "notes", 100, {"job": "second"})
    leases.flush(10)
    assert [fields["job"] for _, fields in redis.xrange("notes")] == ["second"]
    assert leased(redis, "r", ["first", "second"]) == {"first"}
