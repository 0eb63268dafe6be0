"""The window of a run follows the workers there are."""

import math
from collections.abc import Callable, Iterator

import pytest

from flows.dispatch.window import (
    FROM_NOBODY,
    LEAST,
    LOOKS,
    MOST_SHARDS,
    Window,
    shards_for,
    window_for,
)
from pipeline.errors import Unavailable


def test_a_window_that_is_set_is_not_changed() -> None:
    for places in (None, 0, 16, 10_000):
        assert window_for(places, 8) == 8


def test_it_grows_and_shrinks_with_the_workers() -> None:
    assert window_for(None) == window_for(1) == window_for(16) == LEAST
    assert window_for(50 * 16) == 2400
    assert window_for(51 * 16) > window_for(50 * 16)


@pytest.mark.parametrize("concurrency", [4, 8, 16])
@pytest.mark.parametrize("most", [4, 50])
def test_a_scaler_that_counts_messages_reaches_every_worker(concurrency: int, most: int) -> None:
    """As KEDA does: each list, and what is in hand, by one worker's concurrency."""
    workers, rounds = 0, 0
    while workers < most:
        window = window_for(workers * concurrency)
        taken = min(window, workers * concurrency)
        wanted = math.ceil(max(window - taken, taken) / concurrency)
        assert wanted > workers, "it must never stay below what there may be"
        workers, rounds = min(most, wanted), rounds + 1
    assert rounds == 1, "a fleet is called for at once"


@pytest.mark.parametrize("window", [2, 64, 250, 1024, 2400])
def test_shards_in_work_hold_the_window(window: int) -> None:
    shards = shards_for(window, 250)
    assert 2 <= shards <= MOST_SHARDS
    assert (shards - 1) * 250 >= window


def test_a_worker_that_misses_a_look_still_counts() -> None:
    answers: Iterator[int] = iter([800, 0, 0, 0, 16])
    window = Window(lambda: next(answers), shard=250)
    sizes = []
    for _ in range(LOOKS + 1):
        window.look()
        sizes.append(window.size)
    assert sizes == [2400, 2400, 2400, FROM_NOBODY]
    window.look()
    assert window.size == LEAST
    assert window.of_shard() * window.shards <= window.size


def test_shards_with_few_jobs_are_in_work_beside_more_others() -> None:
    window = Window(lambda: 0, shard=250, asked=64)

    def in_work(jobs: int) -> int:
        others = list[int]()
        while window.has_room(jobs, others):
            others.append(jobs)
        return len(others)

    assert in_work(250) == in_work(32) == window.shards == 2
    assert in_work(10) == 6
    assert in_work(1) == MOST_SHARDS
    window = Window(lambda: 0, shard=250, asked=1)
    assert in_work(250) == 1


def test_a_window_keeps_its_size_while_redis_is_away() -> None:
    def away() -> int:
        raise Unavailable("Redis")

    answers: list[Callable[[], int]] = [lambda: 800, away, away, away, away]
    window = Window(lambda: answers.pop(0)(), shard=250)
    for _ in range(5):
        window.look()
    assert window.size == 2400
