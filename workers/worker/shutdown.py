"""Heartbeats of a worker process to its supervisor, and the ways in which the process ends."""

import faulthandler
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import structlog

from pipeline.settings import Settings
from pipeline.watchdog import beat, seconds_since_beat
from workers.processes.heartbeat import Heartbeat, send
from workers.processes.lifecycle import Exit

if TYPE_CHECKING:
    from pipeline.assemble.assembly import Assembly
    from workers.queue.celery_app import BrokerWatch
    from workers.worker.executor import Executor

log = structlog.get_logger(__name__)


class Shutdown:
    """Sends heartbeats, and ends the process.

    Every end goes one way: Celery takes no more messages and waits for the jobs in flight; jobs
    that have not finished within the grace period are handed back. The deadline is kept here,
    because Celery's thread pool has none.
    """

    def __init__(self, settings: Settings, pipe: int) -> None:
        self.executor: Executor | None = None
        self.broker: BrokerWatch | None = None
        self._settings, self._pipe = settings, pipe
        self._problem = ""
        self._leaving = False

    def start_heartbeats(self) -> None:
        """Write heartbeats to the pipe from now on, in a thread."""

        def on_orphaned() -> None:
            self._leave()
            log.warning("the supervisor is gone, this worker leaves too")

        arguments = (self._pipe, self._heartbeat, on_orphaned)
        threading.Thread(target=send, args=arguments, name="heartbeat", daemon=True).start()

    def report_unhealthy(self, reason: str) -> None:
        """Leave because this process cannot go on; at once if it has lost its device."""
        from pipeline.models.faults import tells_of_lost_device

        self._problem = self._problem or reason
        if tells_of_lost_device(reason):
            self._hand_back_and_exit()
        self._leave()

    def start_grace_period(self, **_: object) -> None:
        """Hand back and exit after the grace period. Celery's signal handler calls it; a second
        call does nothing.
        """
        if not self._leaving:
            self._leaving = True
            clock = threading.Timer(self._settings.grace_seconds, self._hand_back_and_exit)
            clock.daemon = True
            clock.start()

    def close(self, ours: "Assembly") -> None:
        """Close what the worker opened, or log why it cannot. A batcher ends after its call on the
        device, so the grace period, which begins here at the latest, bounds the wait.
        """
        self.start_grace_period()
        try:
            ours.close()
        except Exception:
            log.exception("not all that was open could be closed; it ends with the process")

    def exit(self, code: int) -> NoReturn:
        """Exit now, whatever the threads do: one in a call on the device may never end."""
        with suppress(OSError):
            os.write(self._pipe, Heartbeat(problem=self._problem).line())
        with suppress(OSError):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(Exit.UNHEALTHY if self._problem else code)

    def _leave(self) -> None:
        if not self._leaving:
            self.start_grace_period()
            os.kill(os.getpid(), signal.SIGTERM)

    def _hand_back_and_exit(self) -> NoReturn:
        try:
            if self.executor:
                self.executor.requeue_all()
        except Exception:
            log.exception("jobs could not be handed back; their leases will run out")
        finally:
            self.exit(Exit.HANDED_BACK)

    def _heartbeat(self) -> Heartbeat:
        settings = self._settings
        # ends an orphan whose threads are all stuck behind one call, which no thread of ours could
        faulthandler.dump_traceback_later(
            settings.hang_seconds + settings.grace_seconds,
            exit=True,
            file=sys.__stderr__ or 2,  # Celery puts a proxy in its place
        )
        in_flight = self.executor.in_flight if self.executor else 0
        if not in_flight:
            beat()
        silence = self.broker.silence(in_flight) if self.broker and not self._leaving else 0.0
        return Heartbeat(in_flight, seconds_since_beat(), silence, self._problem)
