"""Keeps one worker process per device running. Light: imports neither torch nor Celery."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from pipeline.settings import Settings
from workers.observability.logs import start_logs
from workers.processes.child import Child
from workers.processes.heartbeat import HeartbeatFile
from workers.processes.lifecycle import Backoff, Exit, Limits

WORKER = (sys.executable, "-m", "workers.worker.main")
POLL_SECONDS = 0.2
UNCLEAN = (Exit.MISCONFIGURED, -signal.SIGKILL)

log = structlog.get_logger(__name__)


def supervise(
    settings: Settings,
    devices: Sequence[str],
    parent: int | None = None,
    command: Sequence[str] = WORKER,
) -> int:
    """Work with one process per device until SIGTERM or Ctrl-C, and return an exit code.

    The first signal lets the workers finish or hand back their jobs, the second kills them. With
    `parent`, a process id, the end of that process counts as a signal.
    """
    start_logs(settings, libraries=True)
    file = HeartbeatFile(settings.home)
    supervisor = Supervisor(
        devices,
        Limits.of(settings),
        command=command,
        parent=parent,
        port=settings.metrics_port,
        beat=file.beat,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        return supervisor.run()
    finally:
        file.end()


class Supervisor:
    """The worker processes of this machine.

    `beat` receives the number of workers that are ready and the number wanted, at every poll. With
    a `port` the workers serve their metrics there and on the ports that follow.
    """

    def __init__(
        self,
        devices: Sequence[str],
        limits: Limits,
        *,
        command: Sequence[str] = WORKER,
        parent: int | None = None,
        port: int = 0,
        beat: Callable[[int, int], None] | None = None,
    ) -> None:
        self._beat = beat
        self.slots = [
            Slot(device, command, limits, port + place if port else 0)
            for place, device in enumerate(devices)
        ]
        self._parent = parent
        self._stops = 0

    def run(self) -> int:
        """Keep every slot filled until `stop`. Returns 0, or 1 if a worker had to be killed then or
        cannot work under these settings at all.
        """
        while True:
            orphaned = self._parent is not None and os.getppid() != self._parent
            misconfigured = any(slot.last_code == Exit.MISCONFIGURED for slot in self.slots)
            if not self._stops and (orphaned or misconfigured):
                self._stops = 1
                if orphaned:
                    log.warning("the process that wanted workers is gone")
            for slot in self.slots:
                if self._stops:
                    slot.close()
                if self._stops > 1 and slot.child:
                    slot.child.kill("a second signal")
                slot.poll()
            if self._beat:
                ready = sum(bool(slot.child and slot.child.is_ready) for slot in self.slots)
                self._beat(ready, len(self.slots))
            if self._stops and not any(slot.child for slot in self.slots):
                return int(any(slot.last_code in UNCLEAN for slot in self.slots))
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Have every worker leave; a second call kills them. Safe in a signal handler."""
        self._stops += 1


class Slot:
    """The worker of one device: whenever it ends another one follows, until `close`."""

    def __init__(self, device: str, command: Sequence[str], limits: Limits, port: int) -> None:
        self.child: Child | None = None
        self.last_code: int = Exit.DONE
        """Exit status of the worker that none follows."""
        self._device, self._command, self._limits = device, command, limits
        self._port = port
        self._backoff = Backoff()
        self._empty_until = 0.0
        self._closed = False

    def poll(self) -> None:
        """Enforce the worker's limits; start one if it is due."""
        if self.child:
            code = self.child.poll()
            if code is None:
                return
            lived, self.child = time.monotonic() - self.child.born, None
            if self._closed or code == Exit.MISCONFIGURED:
                self.last_code, self._closed = code, True
            else:
                self._wait(lived, "another worker follows")
        elif not self._closed and time.monotonic() >= self._empty_until:
            try:
                self.child = Child(self._command, self._device, self._limits, self._port)
            except OSError as error:
                self._wait(0.0, f"no worker could be started: {error}")

    def close(self) -> None:
        """Have the worker leave, and start no other."""
        self._closed = True
        if self.child:
            self.child.leave()

    def _wait(self, lived: float, event: str) -> None:
        wait = self._backoff.after(lived)
        self._empty_until = time.monotonic() + wait
        log.warning(event, device=self._device, seconds=wait)
