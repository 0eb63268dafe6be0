"""Tells how far a run is, every second or two and from one thread, to whoever shows it."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from logging import Logger, LoggerAdapter
from typing import Any, Protocol, Self

import structlog

from flows.dispatch.dispatcher import Stopped
from flows.dispatch.snapshot import ProgressCounter, Snapshot

EVERY = 1.5
"""Seconds. Each time costs Prefect's server two requests, which two cores notice."""

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who shows how a run goes. What it raises is logged, and the run goes on."""

    def show(self, snapshot: Snapshot) -> None:
        """The run stands so now."""
        ...


class Pauses:
    """The Listener that logs when and why a run pauses, and when it goes on."""

    def __init__(self, logger: Logger | LoggerAdapter[Any]) -> None:
        self._logger, self._paused = logger, ""

    def show(self, snapshot: Snapshot) -> None:
        """Say it once."""
        if snapshot.paused == self._paused:
            return
        self._paused = snapshot.paused
        if snapshot.paused:
            self._logger.warning("run %s pauses: %s", snapshot.run, snapshot.paused)
        else:
            self._logger.info("run %s goes on", snapshot.run)


class RunProgress(ProgressCounter):
    """A tally that has itself shown while the block runs, and once more at its end.

    `beats` are called in the same thread and as often.
    """

    def __init__(
        self, run: str, listeners: Sequence[Listener], beats: Sequence[Callable[[], None]] = ()
    ) -> None:
        super().__init__(run)
        self._listeners, self._beats = listeners, beats
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.enter("stopped" if issubclass(kind, (Stopped, KeyboardInterrupt)) else "failed")
        self._ended.set()
        self._thread.join(EVERY * 10)

    def _tell(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = time.monotonic() + EVERY
            for beat in self._beats:
                safely(beat)
            self._show()
        self._show()

    def _show(self) -> None:
        snapshot = self.snapshot()
        for listener in self._listeners:
            safely(partial(listener.show, snapshot))


def safely(call: Callable[[], None]) -> None:
    """Call what a run does not depend on; what it raises is logged, and the run goes on."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - who only watches a run must not end it
        log.warning("the run goes on without it", reason=f"{type(error).__name__}: {error}")
