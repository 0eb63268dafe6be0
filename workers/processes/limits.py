"""When a worker process has to go, and how soon another takes its place. Decisions only."""

from dataclasses import dataclass
from typing import Self

from pipeline.settings import Settings
from workers.processes.pipe import Heartbeat

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
DEAF = 60.0
"""Seconds without an answer of the broker after which a worker that waits for one has to go: longer
than Celery needs to notice a connection that is half-open."""
HARD_OF_HEARING = 15.0
"""Seconds of it after which a worker does not count as ready."""
STEADY = 300.0
"""Seconds after which a life counts as a long one."""


@dataclass(frozen=True)
class Limits:
    """Seconds without a step, bytes of memory (0: no bound), seconds to finish in."""

    hang: float
    memory: int
    grace: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings name."""
        memory = settings.worker_memory_mb * 2**20
        return cls(settings.hang_seconds, memory, settings.grace_seconds)

    def hang_of(self, pulse: Heartbeat, silence: float) -> str:
        """Why a worker counts as hanging, or nothing; `silence` is seconds without a pulse."""
        if silence > self.hang:
            return f"no sign of life for {silence:.0f} s"
        if pulse.in_flight and pulse.quiet > self.hang:
            return f"no step for {pulse.quiet:.0f} s, jobs in flight: {pulse.in_flight}"
        if pulse.deaf > DEAF:
            return f"no answer of its broker for {pulse.deaf:.0f} s"
        return ""

    def growth_of(self, memory: int) -> str:
        """Why a worker of so many bytes has to make room, or nothing."""
        if not self.memory or memory <= self.memory:
            return ""
        return f"its memory has grown to {memory >> 20} MB, past {self.memory >> 20} MB"


class Backoff:
    """Seconds before a restart: they double while lives are short."""

    def __init__(self) -> None:
        self._wait = 0.0

    def after(self, lived: float) -> float:
        """The wait after a life of `lived` seconds."""
        longer = min(max(FIRST_WAIT, 2 * self._wait), LONGEST_WAIT)
        self._wait = FIRST_WAIT if lived >= STEADY else longer
        return self._wait
