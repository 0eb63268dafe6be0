"""A worker process's line to its supervisor, and the ways in which the process ends."""

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
from workers.processes.exit_codes import Exit
from workers.processes.pipe import Heartbeat, send

if TYPE_CHECKING:
    from workers.queue.keepalive import Hearing
    from workers.worker.executor import Executor

log = structlog.get_logger(__name__)


class Lifeline:
    """Tells the supervisor how this process is, and ends it when its time has come.

    Whoever wants the end, the way is one: Celery pulls no more and waits for the jobs in flight,
    and what they have not finished within the grace period is handed back. The deadline is ours,
    because Celery's pool of threads knows none.
    """

    def __init__(self, settings: Settings, pipe: int) -> None:
        self.executor: Executor | None = None
        self.hearing: Hearing | None = None
        self._settings, self._pipe = settings, pipe
        self._complaint = ""
        self._leaving = False

    def start(self) -> None:
        """Write the pulse from now on."""
        arguments = (self._pipe, self._pulse, self._on_orphaned)
        threading.Thread(target=send, args=arguments, name="pulse", daemon=True).start()

    def fall_ill(self, reason: str) -> None:
        """Leave because this process cannot go on; at once, where it has lost its device."""
        from pipeline.models.faults import tells_of_lost_device

        self._complaint = self._complaint or reason
        if tells_of_lost_device(reason):
            self._hand_back_and_end()
        self._leave()

    def start_clock(self, **_: object) -> None:
        """The grace period begins. Called in Celery's signal handler, and harmless twice."""
        if not self._leaving:
            self._leaving = True
            clock = threading.Timer(self._settings.grace_seconds, self._hand_back_and_end)
            clock.daemon = True
            clock.start()

    def end(self, code: int) -> NoReturn:
        """End now. Neither a call on the device nor a batcher's thread can be waited for."""
        with suppress(OSError):
            os.write(self._pipe, Heartbeat(complaint=self._complaint).line())
        with suppress(OSError):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(Exit.UNHEALTHY if self._complaint else code)

    def _leave(self) -> None:
        if not self._leaving:
            self.start_clock()
            os.kill(os.getpid(), signal.SIGTERM)

    def _hand_back_and_end(self) -> NoReturn:
        try:
            if self.executor:
                self.executor.requeue_all()
        except Exception:
            log.exception("jobs could not be handed back; their leases will run out")
        finally:
            self.end(Exit.HANDED_BACK)

    def _pulse(self) -> Heartbeat:
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
        deaf = self.hearing.deaf(in_flight) if self.hearing and not self._leaving else 0.0
        return Heartbeat(in_flight, seconds_since_beat(), deaf, self._complaint)

    def _on_orphaned(self) -> None:
        self._leave()
        log.warning("the supervisor is gone, this worker leaves too")
