"""A wait that a withdrawal may end loses no result."""

import threading
from concurrent.futures import Future

import pytest

from pipeline.cancellation import Cancelled, cancellable, result_of


class Late(Future[int]):
    """Its result comes between the end of a wait and the look whether it is there."""

    def result(self, timeout: float | None = None) -> int:
        if not self.done():
            self.set_result(7)
            raise TimeoutError
        return super().result(timeout)


def test_a_result_that_comes_at_the_last_moment_counts() -> None:
    with cancellable(threading.Event()):
        assert result_of(Late()) == 7


def test_an_error_of_its_own_is_raised() -> None:
    future = Future[int]()
    future.set_exception(TimeoutError("mine"))
    with cancellable(threading.Event()), pytest.raises(TimeoutError, match="mine"):
        result_of(future)


def test_a_cancelled_job_waits_for_no_result() -> None:
    cancelled = threading.Event()
    cancelled.set()
    with cancellable(cancelled), pytest.raises(Cancelled):
        result_of(Future[int]())
