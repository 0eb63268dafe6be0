"""Decides when a run pauses: a circuit breaker over how jobs end."""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

RECENT = 200
LEAST = 10
SHARE = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0


class Breaker:
    """Opens when more than a tenth of the latest jobs went back instead of ending.

    While it is open, nothing is sent until a pause is over; then single jobs try whether it is
    worth going on. An outcome closes it; another job that goes back makes the pause twice as long.
    Called from many threads.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._recent = deque[bool](maxlen=RECENT)
        self._pause, self._until, self._since = 0.0, 0.0, 0.0
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether the run is paused, or tries single jobs."""
        return bool(self.reason)

    @property
    def open_for(self) -> float:
        """Seconds since the breaker opened; 0 while it is closed."""
        return self._clock() - self._since if self.reason else 0.0

    def room(self, window: int) -> int:
        """How many jobs may be in flight now, of `window` at most."""
        if not self.reason:
            return window
        return 0 if self._clock() < self._until else 1

    def ended(self) -> bool:
        """A job has its outcome; whether that closed the breaker."""
        with self._lock:
            closes = self.is_open
            if closes:
                self._recent.clear()
                self.reason, self._pause = "", 0.0
            self._recent.append(False)
            return closes

    def requeued(self, reason: str) -> None:
        """A job went back, to be sent again."""
        with self._lock:
            self._recent.append(True)
            back = sum(self._recent)
            if self.reason:
                if self._clock() >= self._until:
                    self._wait()
            elif back >= LEAST and back > SHARE * len(self._recent):
                self.reason, self._since = reason, self._clock()
                self._wait()

    def _wait(self) -> None:
        self._pause = min(LONGEST_PAUSE, 2 * self._pause) or FIRST_PAUSE
        self._until = self._clock() + self._pause
