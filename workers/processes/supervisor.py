"""Keeps one worker process per device alive. Light: it imports neither torch nor Celery."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from pipeline.settings import Settings
from workers.observability.logs import start_logs
from workers.processes.child import Child
from workers.processes.exit_codes import Exit
from workers.processes.heartbeat import Heartbeat
from workers.processes.limits import Backoff, Limits

WORKER = (sys.executable, "-m", "workers.worker.main")
POLL_SECONDS = 0.2
"""Seconds between two looks at the workers."""
UNCLEAN = (Exit.MISCONFIGURED, -signal.SIGKILL)

log = structlog.get_logger(__name__)


def supervise(
    settings: Settings,
    devices: Sequence[str],
    parent: int | None = None,
    command: Sequence[str] = WORKER,
) -> int:
    """Work with one process per device until SIGTERM or Ctrl-C, and return an exit code.

    The first signal lets the workers finish or hand back their jobs, the second ends them at
    once. With `parent`, a process id, the end of that process counts as a signal.
    """
    start_logs(settings, libraries=True)
    heartbeat = Heartbeat(settings.home)
    supervisor = Supervisor(
        devices,
        Limits.of(settings),
        command=command,
        parent=parent,
        port=settings.metrics_port,
        beat=heartbeat.beat,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        return supervisor.run()
    finally:
        heartbeat.end()


class Supervisor:
    """The worker processes of this machine."""

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
        self._posts = [
            Post(device, command, limits, port + place if port else 0)
            for place, device in enumerate(devices)
        ]
        self._parent = parent
        self._stops = 0

    def run(self) -> int:
        """Keep every post manned until `stop`; 0 unless a worker had to be killed then, or cannot
        work under these settings at all.
        """
        while True:
            self._obey()
            for post in self._posts:
                post.look()
            if self._beat:
                self._beat(sum(post.hears for post in self._posts), len(self._posts))
            if self._stops and not any(post.child for post in self._posts):
                return int(any(post.last_code in UNCLEAN for post in self._posts))
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Have every worker leave, or kill them when asked again; safe in a signal handler."""
        self._stops += 1

    def _obey(self) -> None:
        if not self._stops and self._has_to_end():
            self._stops = 1
        for post in self._posts:
            if self._stops:
                post.close()
            if self._stops > 1 and post.child:
                post.child.kill("a second signal")

    def _has_to_end(self) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            log.warning("the process that wanted workers is gone")
            return True
        return any(post.last_code == Exit.MISCONFIGURED for post in self._posts)


class Post:
    """The place at one device: whenever its worker ends another one follows, until `close`."""

    def __init__(self, device: str, command: Sequence[str], limits: Limits, port: int) -> None:
        self.child: Child | None = None
        self.last_code: int = Exit.DONE
        """How the worker ended that none follows."""
        self._device, self._command, self._limits = device, command, limits
        self._port = port
        self._backoff = Backoff()
        self._vacant_until = 0.0
        self._closed = False

    @property
    def hears(self) -> bool:
        """Whether there is a worker that its broker answers."""
        return self.child is not None and self.child.hears

    def look(self) -> None:
        """See how the worker is; start one where one is due."""
        if self.child:
            code = self.child.look()
            if code is not None:
                self._bury(self.child, code)
        elif not self._closed and time.monotonic() >= self._vacant_until:
            self._man()

    def close(self) -> None:
        """Have the worker leave, and none follow."""
        self._closed = True
        if self.child:
            self.child.leave()

    def _man(self) -> None:
        try:
            self.child = Child(self._command, self._device, self._limits, self._port)
        except OSError as error:
            self._wait(0.0, f"no worker could be started: {error}")

    def _bury(self, child: Child, code: int) -> None:
        self.child = None
        if self._closed or code == Exit.MISCONFIGURED:
            self.last_code, self._closed = code, True
        else:
            self._wait(time.monotonic() - child.born, "another worker follows")

    def _wait(self, lived: float, why: str) -> None:
        wait = self._backoff.after(lived)
        self._vacant_until = time.monotonic() + wait
        log.warning(why, device=self._device, seconds=wait)
