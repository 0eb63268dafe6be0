"""Takes jobs in hand back when their run is cancelled and they do not end by themselves soon."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import structlog

from pipeline.cancellation import cancellable
from pipeline.errors import Unavailable
from workers.queue.messages import Queue

LOOK = 1.0
PATIENCE = 2.0
"""Seconds in which the jobs of a cancelled run may still end."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Execution:
    """An execution of a job of this fingerprint of a run; `since` when it is known as cancelled."""

    run: str
    fingerprint: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    since: float | None = None


class Cancellations:
    """The executions in hand; Redis is asked about their runs once a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._hands = queue, set[Execution]()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="recalls", daemon=True).start()

    @contextmanager
    def watched(self, run: str, fingerprint: str) -> Iterator[None]:
        """The execution inside, in this thread, may end as Withdrawn."""
        execution = Execution(run, fingerprint)
        with self._lock:
            self._hands.add(execution)
        try:
            with cancellable(execution.cancelled):
                yield
        finally:
            with self._lock:
                self._hands.discard(execution)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK):
            with self._lock:
                executions = list(self._hands)
            try:
                self._look(executions)
            except Unavailable as error:
                log.warning("nobody tells whether runs are cancelled", reason=str(error))

    def _look(self, executions: list[Execution]) -> None:
        cancelled = {
            key: self._queue.is_cancelled(*key)
            for key in {(h.run, h.fingerprint) for h in executions}
        }
        for execution in executions:
            if not cancelled[execution.run, execution.fingerprint]:
                execution.since = None
                continue
            execution.since = execution.since or monotonic()
            if monotonic() - execution.since >= PATIENCE:
                execution.cancelled.set()
