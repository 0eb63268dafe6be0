"""The progress file of a run, which shows that the run is being worked on."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from flows.dispatch.progress import Snapshot
from pipeline.errors import PressrunError
from pipeline.record import Progress
from pipeline.records.run_folder import RunFolder

EVERY = 10.0
STALE = 60.0
"""Seconds after which the writer of a progress file must have died."""
LAST = 5.0
"""Seconds to wait for the store at the end."""


class Heartbeat:
    """Writes the run's progress to its folder while the block runs.

    It has its own thread, so that a slow store delays neither the progress bar nor a cancellation.
    """

    def __init__(self, run_folder: RunFolder, snapshot: Callable[[], Snapshot]) -> None:
        self._run_folder, self._snapshot = run_folder, snapshot
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(LAST)

    def _beat(self) -> None:
        # errors of the store are left to the run itself, which meets them too
        while not self._ended.is_set():
            with suppress(PressrunError):
                self._run_folder.write_progress(progress_of(self._snapshot()))
            self._ended.wait(EVERY)
        with suppress(PressrunError):
            self._run_folder.drop_progress()


def progress_of(snapshot: Snapshot) -> Progress:
    """The part of a snapshot that is stored."""
    return Progress(
        phase=snapshot.phase,
        rows=snapshot.rows,
        done=snapshot.done,
        jobs_per_minute=snapshot.jobs_per_minute,
        left=snapshot.left,
        paused=snapshot.paused,
    )
