"""Turns go to those who have asked first."""

import threading
import time
from contextlib import suppress

from pipeline.models.batching import DeviceLock


def test_one_who_asks_again_at_once_goes_after_those_who_wait() -> None:
    device_lock, order = DeviceLock(), list[str]()

    def work(name: str) -> None:
        with device_lock:
            order.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
    with device_lock:
        for thread in threads:
            thread.start()
            time.sleep(0.05)  # until it waits
    work("again")
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second", "again"]


def test_the_lock_is_released_after_an_error() -> None:
    device_lock = DeviceLock()
    with suppress(ValueError), device_lock:
        raise ValueError
    with device_lock:
        pass


def test_one_thread_holds_the_lock_at_a_time() -> None:
    device_lock, inside, overlaps = DeviceLock(), list[int](), list[int]()

    def work() -> None:
        for _ in range(50):
            with device_lock:
                inside.append(1)
                overlaps.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == [1] * 400
