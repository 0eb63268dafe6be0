"""Whether the job in this thread is still wanted. A cancelled run takes its jobs back."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from pipeline.errors import PressrunError

Result = TypeVar("Result")

GLANCE = 0.25
"""Seconds between two looks of one who waits."""


class Withdrawn(PressrunError):
    """The job is not wanted any more; another execution may take it up from its beginning."""


_asked_back: ContextVar[threading.Event | None] = ContextVar("asked_back", default=None)


@contextmanager
def withdrawable(asked_back: threading.Event) -> Iterator[None]:
    """What runs inside, in this thread, may end as Withdrawn once the event is set."""
    token = _asked_back.set(asked_back)
    try:
        yield
    finally:
        _asked_back.reset(token)


def check() -> None:
    """Raises Withdrawn where this thread's job is not wanted any more."""
    if (event := _asked_back.get()) and event.is_set():
        raise Withdrawn


def result_of(future: "Future[Result]") -> Result:
    """The future's result, once it is there. Raises Withdrawn where nobody wants it any more."""
    if _asked_back.get() is None:
        return future.result()
    while True:
        check()
        try:
            return future.result(GLANCE)
        except TimeoutError:
            if future.done():
                # it came meanwhile, or this error is its own
                return future.result()
