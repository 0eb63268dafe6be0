"""Whether this process moves on: who takes a step beats, and the worker's watch asks since when."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """The time since the last step, unless something goes on that may take as long as it likes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._patience = 0

    def beat(self) -> None:
        """A step was taken: a denoising step, a finished call of a model."""
        self._last = time.monotonic()

    def since(self) -> float:
        """Seconds since the last step; 0 while a `patient` block runs."""
        return 0.0 if self._patience else time.monotonic() - self._last

    @contextmanager
    def patient(self) -> Iterator[None]:
        """What runs inside is no hang: the loading of a model, a call with its own time limit."""
        with self._lock:
            self._patience += 1
        try:
            yield
        finally:
            self.beat()
            with self._lock:
                self._patience -= 1


_process = Pulse()
beat, since, patient = _process.beat, _process.since, _process.patient
