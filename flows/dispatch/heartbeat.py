"""How a run shows in its books that somebody works on it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from flows.dispatch.snapshot import Snapshot
from pipeline.errors import PressrunError
from pipeline.job import Progress
from pipeline.records.run_folder import RunFolder

EVERY = 10.0
STALE = 60.0
"""Seconds after which who said so last must have died."""
LAST = 5.0
"""Seconds that a store may take at the end."""


class Heartbeat:
    """Keeps the run's progress in its books while the block runs.

    From a thread of its own: a store that is slow holds up neither the bar nor a cancellation.
    """

    def __init__(self, run_folder: RunFolder, snapshot: Callable[[], Snapshot]) -> None:
        self._run_folder, self._standing = run_folder, snapshot
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(LAST)

    def _beat(self) -> None:
        # what a store refuses the run's own work meets as well
        while not self._ended.is_set():
            with suppress(PressrunError):
                self._run_folder.write_progress(progress_of(self._standing()))
            self._ended.wait(EVERY)
        with suppress(PressrunError):
            self._run_folder.drop_progress()


def progress_of(snapshot: Snapshot) -> Progress:
    """A standing, as the books keep it."""
    return Progress(
        phase=snapshot.phase,
        done=snapshot.done,
        jobs_per_minute=snapshot.jobs_per_minute,
        left=snapshot.left,
        paused=snapshot.paused,
    )
