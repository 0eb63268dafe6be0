"""Cancels executions of a cancelled run that do not end by themselves within a short time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import structlog

from pipeline.cancellation import cancellable
from pipeline.errors import Unavailable
from workers.queue.messages import Queue

POLL_SECONDS = 1.0
GRACE_SECONDS = 2.0
"""Time in which the jobs of a cancelled run may still end."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Execution:
    """One job in execution; `since` is the time at which its run was first seen as cancelled."""

    run: str
    fingerprint: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    since: float | None = None


class Cancellations:
    """The executions of this process; a thread polls Redis for their runs once a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._executions = queue, set[Execution]()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="cancellations", daemon=True).start()

    @contextmanager
    def watched(self, run: str, fingerprint: str) -> Iterator[None]:
        """A block, in this thread, in which `Cancelled` may be raised."""
        execution = Execution(run, fingerprint)
        with self._lock:
            self._executions.add(execution)
        try:
            with cancellable(execution.cancelled):
                yield
        finally:
            with self._lock:
                self._executions.discard(execution)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(POLL_SECONDS):
            with self._lock:
                executions = list(self._executions)
            try:
                cancelled = {
                    key: self._queue.is_cancelled(*key)
                    for key in {(e.run, e.fingerprint) for e in executions}
                }
            except Unavailable as error:
                log.warning("nobody tells whether runs are cancelled", reason=str(error))
                continue
            for execution in executions:
                if not cancelled[execution.run, execution.fingerprint]:
                    execution.since = None
                    continue
                execution.since = execution.since or monotonic()
                if monotonic() - execution.since >= GRACE_SECONDS:
                    execution.cancelled.set()
