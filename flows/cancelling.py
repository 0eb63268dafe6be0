"""Stops a run that is cancelled in Prefect: in the UI, through the API, with its command line; or
that the terminal interrupts.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType

from flows.dispatch.dispatcher import Dispatcher, Stopped
from pipeline.job import RunSpec
from pipeline.records.run_folder import RunFolder
from workers.queue.messages import Queue

CANCELLED = (StateType.CANCELLING, StateType.CANCELLED)


class Interrupt:
    """Stops the dispatcher of a flow in another thread, now or as soon as there is one."""

    def __init__(self) -> None:
        self.asked, self._lock = False, threading.Lock()
        self._dispatcher: Dispatcher | None = None

    def heed(self, dispatcher: Dispatcher) -> None:
        """There is something to stop from now on."""
        with self._lock:
            self._dispatcher = dispatcher
        if self.asked:
            dispatcher.stop()

    def __call__(self) -> None:
        """Have every shard in work end at its next look."""
        with self._lock:
            self.asked = True
        if self._dispatcher:
            self._dispatcher.stop()


INTERRUPT: ContextVar[Interrupt] = ContextVar("interrupt")
"""Set by who runs the flow in a thread of its own."""


class CancelWatch:
    """Looks at the flow run's own state, and calls `stop` once when somebody cancels it.

    Prefect itself ends only a process that it has started, and tells it nothing before.
    """

    def __init__(self, flow_run: UUID, stop: Callable[[], None], client: SyncPrefectClient) -> None:
        self._flow_run, self._stop, self._client = flow_run, stop, client
        self._stopped = False

    def look(self) -> None:
        """Ask Prefect how the flow run stands."""
        if self._stopped:
            return
        state = self._client.read_flow_run(self._flow_run).state
        if state and state.type in CANCELLED:
            self._stop()
            self._stopped = True


class Stop:
    """Stops the run everywhere: here, in the workers, and for whoever else works on it."""

    def __init__(self, run_folder: RunFolder, queue: Queue) -> None:
        self._run_folder, self._queue = run_folder, queue
        self.asked, self._lock = False, threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._fingerprint = ""

    def begin(self, spec: RunSpec, dispatcher: Dispatcher) -> None:
        """There is something to stop from now on."""
        with self._lock:
            self._dispatcher, self._fingerprint = dispatcher, spec.fingerprint
        if self.asked:
            self()

    def check(self) -> None:
        """Raise Stopped where it was asked for, here or in the terminal."""
        interrupt = INTERRUPT.get(None)
        if self.asked or (interrupt and interrupt.asked):
            raise Stopped

    def __call__(self) -> None:
        """Stop it: jobs in the queue are dropped, those in work given up unless they end soon."""
        with self._lock:
            self.asked = True
            dispatcher = self._dispatcher
        if dispatcher:
            dispatcher.stop()
            self._run_folder.request_cancel()
            self._queue.cancel(self._run_folder.run, self._fingerprint)
