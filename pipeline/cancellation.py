"""Cancellation of the job in the current thread, when its run is cancelled."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from pipeline.errors import PressrunError

Result = TypeVar("Result")

POLL_SECONDS = 0.25


class Cancelled(PressrunError):
    """The job was cancelled with its run; resume the run to execute it from its beginning."""


_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)


@contextmanager
def cancellable(cancelled: threading.Event) -> Iterator[None]:
    """Let the block, in this thread, end with Cancelled once the event is set."""
    token = _cancelled.set(cancelled)
    try:
        yield
    finally:
        _cancelled.reset(token)


def check() -> None:
    """Raise Cancelled if this thread's job was cancelled."""
    if (event := _cancelled.get()) and event.is_set():
        raise Cancelled


def result_of(future: "Future[Result]") -> Result:
    """Wait for the future's result. Raises Cancelled if this thread's job is cancelled first."""
    if _cancelled.get() is None:
        return future.result()
    while True:
        check()
        try:
            return future.result(POLL_SECONDS)
        except TimeoutError:
            if future.done():
                # the result came just now, or this TimeoutError is the future's own
                return future.result()
