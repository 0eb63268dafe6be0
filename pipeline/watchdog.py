"""Watchdog clock: model calls report progress, the worker reads the time since the last report."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Watchdog:
    """The time since the last progress, suspended while an operation of any length runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._suspended = 0

    def beat(self) -> None:
        """Report progress: a denoising step, a finished model call."""
        self._last = time.monotonic()

    def seconds_since_beat(self) -> float:
        """Seconds since the last progress; 0 while suspended."""
        return 0.0 if self._suspended else time.monotonic() - self._last

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend the watchdog for a block that may be slow: loading a model, a call with its own
        time limit.
        """
        with self._lock:
            self._suspended += 1
        try:
            yield
        finally:
            self.beat()
            with self._lock:
                self._suspended -= 1


_process = Watchdog()
beat, seconds_since_beat, suspended = (
    _process.beat,
    _process.seconds_since_beat,
    _process.suspended,
)
