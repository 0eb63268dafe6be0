import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.models.batching import Batcher
from pipeline.telemetry import metered


def test_concurrent_calls_share_a_batch_and_get_their_own_results() -> None:
    batches: list[list[int]] = []

    def double(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        time.sleep(0.02)
        return [2 * item for item in items]

    batcher = Batcher("test", double, limit=8)
    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(batcher, range(32))) == [2 * n for n in range(32)]
    assert len(batches) < 16
    assert max(map(len, batches)) <= 8


def test_only_equal_keys_meet_and_the_limit_counts_sizes() -> None:
    batches: list[list[int]] = []

    def keep(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        time.sleep(0.02)
        return items

    batcher = Batcher("test", keep, limit=6, key=lambda n: n % 2, size=lambda n: 3)
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(batcher, range(12)))
    assert all(len({n % 2 for n in batch}) == 1 for batch in batches)
    assert all(len(batch) <= 2 for batch in batches)


def test_an_item_larger_than_the_limit_still_runs_alone() -> None:
    batcher = Batcher("test", lambda items: items, limit=2, size=lambda _: 5)
    assert batcher(1) == 1


def test_the_oldest_key_goes_first() -> None:
    request: list[str] = []
    gate = threading.Event()

    def event(items: Sequence[str]) -> Sequence[str]:
        gate.wait(5)
        request.append(items[0][0])
        return items

    batcher = Batcher("test", event, limit=8, key=lambda word: word[0])
    with ThreadPoolExecutor(8) as threads:
        for word in ("a1", "b1", "c1", "b2"):
            threads.submit(batcher, word)
            time.sleep(0.02)
        gate.set()
    assert request == ["a", "b", "c"]


def test_an_error_reaches_every_caller_of_its_batch_and_the_next_batch_works() -> None:
    def fail_on_seven(items: Sequence[int]) -> Sequence[int]:
        if 7 in items:
            raise ValueError("seven")
        return items

    batcher = Batcher("test", fail_on_seven, limit=1)
    with pytest.raises(ValueError, match="seven"):
        batcher(7)
    assert batcher(8) == 8


def test_a_wrong_number_of_results_is_an_error_not_a_hang() -> None:
    batcher = Batcher("test", lambda items: list(items)[1:], limit=4)
    with pytest.raises(ValueError, match="shorter"):
        batcher(1)


def test_each_job_is_charged_its_share() -> None:
    def work(items: Sequence[int]) -> Sequence[int]:
        time.sleep(0.05)
        return items

    batcher = Batcher("role", work, limit=4, size=lambda n: n, linger=0.2)
    shares: dict[int, float] = {}

    def call(size: int) -> None:
        with metered() as meter:
            batcher(size)
        shares[size] = meter.device["role"]

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(call, (1, 3)))
    assert shares[3] == pytest.approx(3 * shares[1])
    assert 0.05 <= sum(shares.values()) < 0.5


def test_turns_keep_batchers_of_one_device_apart() -> None:
    device_lock, inside, overlaps = threading.Lock(), [], []

    def work(items: Sequence[int]) -> Sequence[int]:
        inside.append(1)
        overlaps.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return items

    one = Batcher("one", work, limit=1, device_lock=device_lock)
    two = Batcher("two", work, limit=1, device_lock=device_lock)
    with ThreadPoolExecutor(8) as threads:
        for n in range(4):
            threads.submit(one, n)
            threads.submit(two, n)
    assert set(overlaps) == {1}


def test_closing_finishes_what_waits_and_refuses_more() -> None:
    batcher = Batcher("test", lambda items: items, limit=2)
    assert batcher(1) == 1
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher(2)
