"""A circuit breaker that pauses a run when too many jobs are requeued."""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

RECENT = 200
LEAST = 10
SHARE = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0


class Breaker:
    """A breaker that opens when more than a tenth of the latest jobs were requeued.

    While it is open, nothing is sent until a pause is over; then single jobs probe the workers. An
    outcome closes it; another requeued job doubles the pause. Thread-safe.
    """

    def __init__(
        self, clock: Callable[[], float] = monotonic, first_pause: float = FIRST_PAUSE
    ) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._first_pause = first_pause
        self._recent = deque[bool](maxlen=RECENT)
        self._pause, self._until, self._since = 0.0, 0.0, 0.0
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """True while the run is paused or probes with single jobs."""
        return bool(self.reason)

    @property
    def open_for(self) -> float:
        """Seconds since the breaker opened; 0 while it is closed."""
        return self._clock() - self._since if self.reason else 0.0

    def room(self, window: int) -> int:
        """The number of jobs that may be in flight now, at most `window`."""
        if not self.reason:
            return window
        return 0 if self._clock() < self._until else 1

    def ended(self) -> bool:
        """Count an outcome; True if it closed the breaker."""
        with self._lock:
            closes = self.is_open
            if closes:
                self._recent.clear()
                self.reason, self._pause = "", 0.0
            self._recent.append(False)
            return closes

    def requeued(self, reason: str) -> None:
        """Count a requeued job, which may open the breaker for this reason."""
        with self._lock:
            self._recent.append(True)
            requeued = sum(self._recent)
            if self.reason:
                if self._clock() >= self._until:
                    self._wait()
            elif requeued >= LEAST and requeued > SHARE * len(self._recent):
                self.reason, self._since = reason, self._clock()
                self._wait()

    def _wait(self) -> None:
        self._pause = min(LONGEST_PAUSE, 2 * self._pause) or self._first_pause
        self._until = self._clock() + self._pause
