"""Keeps one worker process per device running. Light: imports neither torch nor Celery."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from pipeline.settings import Settings
from workers.observability.logs import start_logs
from workers.processes.heartbeat import HeartbeatFile
from workers.processes.lifecycle import READY_BROKER_SILENCE, Exit, Limits
from workers.processes.process import ManagedProcess, ProcessSpec

WORKER = (sys.executable, "-m", "workers.worker.main")
POLL_SECONDS = 0.2
KILL_AFTER = 5.0
"""Seconds past the grace period."""
SPARING = {
    "MALLOC_ARENA_MAX": "2",  # else glibc keeps what was freed in up to eight heaps a core
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",  # 1,024 are .4 GB where batches have many sizes
}
"""Environment that keeps a worker's memory flat; libraries read it as they are loaded."""
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
        self.workers = [
            ManagedProcess(
                ProcessSpec(
                    "worker",
                    command,
                    env={
                        **SPARING,
                        **os.environ,
                        "PRESSRUN_DEVICE": device,
                        "PRESSRUN_METRICS_PORT": str(port + place if port else 0),
                    },
                    log=None,
                    stop_seconds=limits.grace + KILL_AFTER,
                    limits=limits,
                    final=[Exit.MISCONFIGURED],
                    context={"device": device},
                    verbose=True,
                )
            )
            for place, device in enumerate(devices)
        ]
        self._parent = parent
        self._stops = 0

    def run(self) -> int:
        """Keep every worker running until `stop`. Returns 0, or 1 if a worker had to be killed then
        or cannot work under these settings at all.
        """
        while True:
            orphaned = self._parent is not None and os.getppid() != self._parent
            misconfigured = any(each.last_code == Exit.MISCONFIGURED for each in self.workers)
            if not self._stops and (orphaned or misconfigured):
                self._stops = 1
                if orphaned:
                    log.warning("the process that wanted workers is gone")
            for each in self.workers:
                if self._stops:
                    each.leave()
                if self._stops > 1:
                    each.kill("a second signal")
                each.poll()
            running = [each for each in self.workers if each.running]
            if self._beat:
                silences = [each.heartbeat.broker_silence for each in running]
                ready = sum(silence < READY_BROKER_SILENCE for silence in silences)
                self._beat(ready, len(self.workers))
            if self._stops and not running:
                return int(any(each.last_code in UNCLEAN for each in self.workers))
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Have every worker leave; a second call kills them. Safe in a signal handler."""
        self._stops += 1
