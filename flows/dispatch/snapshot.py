"""How a run goes, counted as it goes: outcomes, images per second, what is left."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from pipeline.job import KEPT, Status

ENDED_EARLY = ("stopped", "failed")
"""Phases of a run that has ended before its rows had."""
MINUTE = 60.0
"""Seconds over which the rates are taken."""


@dataclass(frozen=True)
class Snapshot:
    """How a run stands at one moment. Rates are those of the last minute; `left` is in seconds, and
    None while nobody can tell.
    """

    run: str
    phase: str = ""
    rows: int = 0
    done: int = 0
    counts: Mapping[Status, int] = field(default_factory=dict)
    pictures_per_second: float = 0.0
    jobs_per_minute: float = 0.0
    left: float | None = None
    seconds: float = 0.0
    device_seconds: float = 0.0
    paused: str = ""

    @property
    def before(self) -> int:
        """Rows that had their outcome before, or that are equal to another one."""
        return self.done - sum(self.counts.values())

    @property
    def share(self) -> float:
        """The part of the rows that is done, 0 to 1."""
        return self.done / self.rows if self.rows else 0.0


class ProgressCounter:
    """Counts from any thread. What it holds does not grow with the rows."""

    def __init__(self, run: str, clock: Callable[[], float] = monotonic) -> None:
        self._run, self._clock, self._begun = run, clock, clock()
        self._lock = threading.Lock()
        self._counts = Counter[Status]()
        self._rows, self._done, self._invalid, self._device_seconds = 0, 0, 0, 0.0
        self._phase, self._paused = "", ""
        self._looks = deque[tuple[float, int, int]]()

    def enter(self, phase: str, rows: int | None = None) -> None:
        """The run comes to another phase; `rows` as soon as they are known."""
        with self._lock:
            self._phase = phase
            self._rows = self._rows if rows is None else rows

    def count(self, status: Status, device_seconds: float = 0.0) -> None:
        """One more job has its outcome, and took so much of a device."""
        with self._lock:
            self._done += 1
            self._counts[status] += 1
            self._device_seconds += device_seconds

    def skip(self, rows: int, invalid: int = 0) -> None:
        """So many rows need no work: they are done, equal to another row, or `invalid`."""
        with self._lock:
            self._done += rows
            self._invalid += invalid

    def pause(self, reason: str) -> None:
        """The run has paused for a reason; an empty one: it goes on."""
        with self._lock:
            self._paused = reason

    def snapshot(self) -> Snapshot:
        """How the run stands now; each call is a look that rates are taken between."""
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
                pictures_per_second=(images - images_then) / seconds,
                jobs_per_minute=speed * MINUTE,
                left=(self._rows - self._done) / speed if speed else None,
                seconds=now - self._begun,
                device_seconds=self._device_seconds,
                paused=self._paused,
            )
