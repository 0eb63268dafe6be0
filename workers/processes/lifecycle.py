"""Rules for a worker process: exit codes, limits it must keep, delays before its replacement."""

import signal
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from pipeline.settings import Settings
from workers.processes.heartbeat import Heartbeat

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
MAX_BROKER_SILENCE = 60.0
"""Seconds after which a worker that waits for its broker's answer is replaced: longer than Celery
needs to notice a half-open connection."""
READY_BROKER_SILENCE = 15.0
"""Seconds of the same after which a worker does not count as ready."""
STEADY = 300.0
"""Seconds after which a process counts as long-lived, and the restart delay begins again."""


class Exit(IntEnum):
    """Exit codes of a worker process."""

    DONE = 0
    HANDED_BACK = 75
    UNHEALTHY = 76
    MISCONFIGURED = 78


_WORDS = {
    Exit.DONE: "it was told to stop",
    Exit.HANDED_BACK: "it handed back what it could not finish in time",
    Exit.UNHEALTHY: "it is unhealthy",
    Exit.MISCONFIGURED: "a setting is wrong",
}


def describe(code: int) -> str:
    """The meaning of a process's exit status, which is negative after a signal."""
    if code in _WORDS:
        return _WORDS[Exit(code)]
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"{signal.Signals(-code).name} ended it"
    except ValueError:
        return f"signal {-code} ended it"


@dataclass(frozen=True)
class Limits:
    """Seconds without a step, bytes of memory (0: no limit), seconds to finish jobs in."""

    hang: float
    memory: int
    grace: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings name."""
        memory = settings.worker_memory_mb * 2**20
        return cls(settings.hang_seconds, memory, settings.grace_seconds)

    def hang_of(self, heartbeat: Heartbeat, silence: float) -> str:
        """The reason to kill a hanging worker, or "". `silence`: seconds without a heartbeat."""
        if silence > self.hang:
            return f"no sign of life for {silence:.0f} s"
        if heartbeat.in_flight and heartbeat.quiet > self.hang:
            return f"no step for {heartbeat.quiet:.0f} s, jobs in flight: {heartbeat.in_flight}"
        if heartbeat.broker_silence > MAX_BROKER_SILENCE:
            return f"no answer of its broker for {heartbeat.broker_silence:.0f} s"
        return ""

    def growth_of(self, memory: int) -> str:
        """The reason to replace a worker with this many bytes resident, or ""."""
        if not self.memory or memory <= self.memory:
            return ""
        return f"its memory has grown to {memory >> 20} MB, past {self.memory >> 20} MB"


class Backoff:
    """Seconds before a restart; they double while processes are short-lived."""

    def __init__(self) -> None:
        self._wait = 0.0

    def after(self, lived: float) -> float:
        """The delay after a process that lived this many seconds."""
        longer = min(max(FIRST_WAIT, 2 * self._wait), LONGEST_WAIT)
        self._wait = FIRST_WAIT if lived >= STEADY else longer
        return self._wait
