"""The progress of a run: counted as jobs end, and shown from one thread every second or two."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from logging import Logger, LoggerAdapter
from time import monotonic
from typing import Any, Protocol, Self

import structlog

from flows.dispatch.dispatcher import Stopped
from pipeline.record import KEPT, Status

EVERY = 1.5
"""Seconds between two reports. Each costs Prefect's server two requests, which two cores notice."""
ENDED_EARLY = ("stopped", "failed")
"""Phases of a run that ended before all its rows did."""
MINUTE = 60.0
"""Seconds over which the rates are taken."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The progress of a run at one moment. Rates are of the last minute; `left` is in seconds, None
    while it cannot be estimated.
    """

    run: str
    phase: str = ""
    rows: int = 0
    done: int = 0
    counts: Mapping[Status, int] = field(default_factory=dict)
    images_per_second: float = 0.0
    jobs_per_minute: float = 0.0
    left: float | None = None
    seconds: float = 0.0
    device_seconds: float = 0.0
    paused: str = ""

    @property
    def before(self) -> int:
        """Rows that had their outcome before, or equal another row."""
        return self.done - sum(self.counts.values())

    @property
    def share(self) -> float:
        """The share of the rows that is done, 0 to 1."""
        return self.done / self.rows if self.rows else 0.0


class ProgressCounter:
    """A thread-safe counter whose memory does not grow with the rows."""

    def __init__(self, run: str, clock: Callable[[], float] = monotonic) -> None:
        self._run, self._clock, self._begun = run, clock, clock()
        self._lock = threading.Lock()
        self._counts = Counter[Status]()
        self._rows, self._done, self._invalid, self._device_seconds = 0, 0, 0, 0.0
        self._phase, self._paused, self._whole = "", "", False
        self._looks = deque[tuple[float, int, int]]()

    def enter(self, phase: str) -> None:
        """Start another phase."""
        with self._lock:
            self._phase = phase

    def expect(self, rows: int, *, whole: bool = False) -> None:
        """Report the number of rows read so far, `whole` at the end of the job file."""
        with self._lock:
            self._rows, self._whole = rows, whole

    def count(self, status: Status, device_seconds: float = 0.0) -> None:
        """Count an outcome and its device seconds."""
        with self._lock:
            self._done += 1
            self._counts[status] += 1
            self._device_seconds += device_seconds

    def skip(self, rows: int, invalid: int = 0) -> None:
        """Count rows without work: done before, equal to another row, or `invalid`."""
        with self._lock:
            self._done += rows
            self._invalid += invalid

    def pause(self, reason: str) -> None:
        """Report that the run pauses for this reason, or with an empty one that it resumes."""
        with self._lock:
            self._paused = reason

    def snapshot(self) -> Snapshot:
        """The progress now. Rates are taken between calls."""
        with self._lock:
            now, ended = self._clock(), self._counts.total()
            images = sum(self._counts[status] for status in KEPT)
            self._looks.append((now, ended, images))
            while now - self._looks[0][0] > MINUTE:
                self._looks.popleft()
            since, ended_then, images_then = self._looks[0]
            seconds = max(now - since, 1e-9)
            speed = (ended - ended_then) / seconds
            return Snapshot(
                run=self._run,
                phase=self._phase,
                rows=self._rows,
                done=self._done,
                counts=dict(self._counts + Counter({Status.INVALID: self._invalid})),
                images_per_second=(images - images_then) / seconds,
                jobs_per_minute=speed * MINUTE,
                left=(self._rows - self._done) / speed if speed and self._whole else None,
                seconds=now - self._begun,
                device_seconds=self._device_seconds,
                paused=self._paused,
            )


class Listener(Protocol):
    """A display of progress. Its exceptions are logged and do not stop the run."""

    def show(self, snapshot: Snapshot) -> None:
        """Show the progress now."""
        ...


class Pauses:
    """The Listener that logs when and why a run pauses and when it resumes."""

    def __init__(self, logger: Logger | LoggerAdapter[Any]) -> None:
        self._logger, self._paused = logger, ""

    def show(self, snapshot: Snapshot) -> None:
        """Log a change, once."""
        if snapshot.paused == self._paused:
            return
        self._paused = snapshot.paused
        if snapshot.paused:
            self._logger.warning("run %s pauses: %s", snapshot.run, snapshot.paused)
        else:
            self._logger.info("run %s goes on", snapshot.run)


class RunProgress(ProgressCounter):
    """A counter that is shown to its listeners while the block runs, and once more at its end.

    `beats` are called in the same thread, before each report.
    """

    def __init__(
        self, run: str, listeners: Sequence[Listener], beats: Sequence[Callable[[], None]] = ()
    ) -> None:
        super().__init__(run)
        self._listeners, self._beats = listeners, beats
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.enter("stopped" if issubclass(kind, (Stopped, KeyboardInterrupt)) else "failed")
        self._ended.set()
        self._thread.join(EVERY * 10)

    def _report(self) -> None:
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
    """Call something that the run does not depend on; its exceptions are logged."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - a display must not end a run
        log.warning("the run goes on without it", reason=f"{type(error).__name__}: {error}")
