"""Cancelling a run: from Prefect's UI, API or command line, or by Ctrl-C in the terminal."""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType

from flows.dispatch.dispatcher import Dispatcher, Stopped
from pipeline.record import RunSpec
from pipeline.records.run_folder import RunFolder
from workers.queue.messages import Queue

CANCELLED = (StateType.CANCELLING, StateType.CANCELLED)


class Interrupt:
    """Stops the dispatcher of a flow that runs in another thread, as soon as there is one."""

    def __init__(self) -> None:
        self.asked, self._lock = False, threading.Lock()
        self._dispatcher: Dispatcher | None = None

    def heed(self, dispatcher: Dispatcher) -> None:
        """Stop this dispatcher when called, at once if that has happened."""
        with self._lock:
            self._dispatcher = dispatcher
        if self.asked:
            dispatcher.stop()

    def __call__(self) -> None:
        """Make every running shard end at its next check."""
        with self._lock:
            self.asked = True
        if self._dispatcher:
            self._dispatcher.stop()


INTERRUPT: ContextVar[Interrupt] = ContextVar("interrupt")
"""The interrupt of the flow that runs in this context, if the command line started it."""


class CancelWatch:
    """A poll of the flow run's own state, which calls `stop` once when it is cancelled.

    Prefect itself only kills a process that it has started, without a notice to the flow.
    """

    def __init__(self, flow_run: UUID, stop: Callable[[], None], client: SyncPrefectClient) -> None:
        self._flow_run, self._stop, self._client = flow_run, stop, client
        self._stopped = False

    def look(self) -> None:
        """Read the flow run's state from Prefect."""
        if self._stopped:
            return
        state = self._client.read_flow_run(self._flow_run).state
        if state and state.type in CANCELLED:
            self._stop()
            self._stopped = True


class Stop:
    """Stops the run everywhere: here, in the workers and in any other flow that works on it."""

    def __init__(self, run_folder: RunFolder, queue: Queue) -> None:
        self._run_folder, self._queue = run_folder, queue
        self.asked, self._lock = False, threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._fingerprint = ""

    def begin(self, spec: RunSpec, dispatcher: Dispatcher) -> None:
        """Stop this dispatcher when called, at once if that has happened."""
        with self._lock:
            self._dispatcher, self._fingerprint = dispatcher, spec.fingerprint
        if self.asked:
            self()

    def check(self) -> None:
        """Raise Stopped if the run was cancelled, in Prefect or in the terminal."""
        interrupt = INTERRUPT.get(None)
        if self.asked or (interrupt and interrupt.asked):
            raise Stopped

    def __call__(self) -> None:
        """Stop the run: queued jobs are dropped, running ones are given up unless they end soon."""
        with self._lock:
            self.asked = True
            dispatcher = self._dispatcher
        if dispatcher:
            dispatcher.stop()
            self._run_folder.request_cancel()
            self._queue.cancel(self._run_folder.run, self._fingerprint)
