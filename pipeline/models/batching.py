"""Sharing of a device among threads: a fair lock, and a batcher that merges concurrent calls."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from pipeline import telemetry
from pipeline.cancellation import result_of
from pipeline.telemetry import charge
from pipeline.watchdog import beat

Item = TypeVar("Item")
Result = TypeVar("Result")


class DeviceLock:
    """A first-come, first-served lock.

    The engine acquires it again right after each release; with a plain lock others would starve.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        mine = threading.Event()
        with self._guard:
            self._waiting.append(mine)
            self._waiting[0].set()
        mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._waiting.popleft()
            if self._waiting:
                self._waiting[0].set()


class Batcher(Generic[Item, Result]):
    """Runs `function` on lists of items gathered from many threads, in one thread of its own.

    Items with equal keys share a call; `size` is an item's part of the `limit`. While one batch
    runs, the next one gathers; `linger`, in seconds, lets the first callers of a burst meet.
    `device_lock` is held during each call. A caller gets its own result, or its batch's exception.
    """

    def __init__(
        self,
        role: str,
        function: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        limit: int,
        key: Callable[[Item], Hashable] = lambda _: None,
        size: Callable[[Item], int] = lambda _: 1,
        linger: float = 0.005,
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._role, self._function = role, function
        self._device_lock = device_lock or nullcontext()
        self._limit, self._key, self._size, self._linger = limit, key, size, linger
        self._waiting: deque[tuple[Item, Future[tuple[Result, float]]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"batch-{role}", daemon=True)
        self._thread.start()

    def __call__(self, item: Item) -> Result:
        """Wait for this item's result, and charge its share of the call to the calling job."""
        future: Future[tuple[Result, float]] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the {self._role} batcher is closed")
            self._waiting.append((item, future))
            self._changed.notify()
        result, seconds = result_of(future)
        charge(self._role, seconds)
        return result

    def close(self) -> None:
        """Finish the waiting items, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._gather():
            items = [item for item, _ in batch]
            total = sum(map(self._size, items))
            try:
                with self._device_lock:
                    start = time.perf_counter()
                    results = self._function(items)
                    beat()
                    seconds = time.perf_counter() - start
                telemetry.batch(self._role, total, self._limit)
                for (item, future), result in zip(batch, results, strict=True):
                    future.set_result((result, seconds * self._size(item) / total))
            except Exception as error:  # noqa: BLE001 - raised by the callers
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _gather(self) -> list[tuple[Item, Future[tuple[Result, float]]]]:
        """The oldest waiting item and the others that may share its call; empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            self._changed.wait_for(
                lambda: self._closed or sum(self._size(i) for i, _ in self._waiting) >= self._limit,
                timeout=self._linger,
            )
            key = self._key(self._waiting[0][0])
            taken: list[tuple[Item, Future[tuple[Result, float]]]] = []
            left: deque[tuple[Item, Future[tuple[Result, float]]]] = deque()
            room = self._limit
            for item, future in self._waiting:
                fits = self._size(item) <= room or not taken
                if fits and self._key(item) == key:
                    taken.append((item, future))
                    room -= self._size(item)
                else:
                    left.append((item, future))
            self._waiting = left
            return taken
