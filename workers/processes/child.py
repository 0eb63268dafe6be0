"""One worker process, as its supervisor sees it."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from logging import INFO, WARNING

import psutil
import structlog

from workers.processes.heartbeat import Heartbeat, Listener
from workers.processes.lifecycle import READY_BROKER_SILENCE, Limits, describe

KILL_AFTER = 5.0
"""Seconds past the grace period."""
SPARING = {
    "MALLOC_ARENA_MAX": "2",  # else glibc keeps what was freed in up to eight heaps a core
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",  # 1,024 are .4 GB where batches have many sizes
}
"""Environment that keeps a worker's memory flat; libraries read it as they are loaded."""

log = structlog.get_logger(__name__)


class Child:
    """A running process that is stopped, or killed, when it breaks a limit.

    It gets the write end of its heartbeat pipe as its last argument, its device and metrics port
    in the environment, and its own session: a terminal's Ctrl-C reaches the supervisor alone.
    """

    def __init__(self, command: Sequence[str], device: str, limits: Limits, port: int = 0) -> None:
        receiver, sender = os.pipe()
        mine = {"PRESSRUN_DEVICE": device, "PRESSRUN_METRICS_PORT": str(port)}
        try:
            self._process = subprocess.Popen(
                [*command, str(sender)],
                env=SPARING | os.environ | mine,
                stdin=subprocess.DEVNULL,
                pass_fds=(sender,),
                start_new_session=True,
            )
        finally:
            os.close(sender)
        self.born = time.monotonic()
        self._listener, self._limits = Listener(receiver), limits
        self._overdue: float | None = None
        self._killed = False
        self._log = log.bind(device=device, pid=self._process.pid)
        self._log.info("worker started")

    def poll(self) -> int | None:
        """Enforce the limits; return the exit status once the process has ended."""
        code = self._process.poll()
        silence = self._listener.listen()
        if code is not None:
            self._listener.close()
            expected = self._overdue is not None or self._killed
            reason = ": ".join(filter(None, (describe(code), self.heartbeat.problem)))
            self._log.log(INFO if expected else WARNING, "worker ended", reason=reason)
        elif self._overdue is not None:
            if time.monotonic() > self._overdue:
                self.kill("it was told to leave and has not")
        elif hang := self._limits.hang_of(self.heartbeat, silence):
            self.kill(hang)
        elif growth := self._limits.growth_of(self._memory()):
            self._log.warning("worker told to leave", reason=growth)
            self.leave()
        return code

    @property
    def heartbeat(self) -> Heartbeat:
        """The latest one that the process sent; all zero before the first."""
        return self._listener.latest

    @property
    def is_ready(self) -> bool:
        """Readiness: the broker answers the worker, as far as its heartbeat says."""
        return self.heartbeat.broker_silence < READY_BROKER_SILENCE

    def leave(self) -> None:
        """Have it finish or hand back its jobs and end; it is killed if it takes too long."""
        if self._overdue is None:
            self._overdue = time.monotonic() + self._limits.grace + KILL_AFTER
            self._process.terminate()

    def kill(self, reason: str) -> None:
        """Kill it and the processes that it has started."""
        if not self._killed:
            self._killed = True
            self._log.error("worker killed", reason=reason)
            with suppress(ProcessLookupError, PermissionError):  # macOS's answer for a zombie
                os.killpg(self._process.pid, signal.SIGKILL)

    def _memory(self) -> int:
        """Bytes resident; 0 if there is no limit, or no process any more."""
        if not self._limits.memory:
            return 0
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0
