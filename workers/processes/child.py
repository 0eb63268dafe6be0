"""One worker process as its supervisor sees it."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from logging import INFO, WARNING

import psutil
import structlog

from workers.processes.exit_codes import describe
from workers.processes.limits import HARD_OF_HEARING, Limits
from workers.processes.pipe import Listener

KILL_AFTER = 5.0
"""Seconds past the grace period."""
SPARING = {
    "MALLOC_ARENA_MAX": "2",  # else glibc keeps what was freed in up to eight heaps a core
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",  # 1,024 are .4 GB where batches have many sizes
}
"""What keeps a worker's memory flat, for libraries that read it as they are loaded."""

log = structlog.get_logger(__name__)


class Child:
    """A running process: asked to leave, or killed, when it breaks a limit.

    It gets the number of the pipe for its pulse as its last argument, its device and the port of
    its figures in the environment, and a session of its own: a terminal's Ctrl-C reaches the
    supervisor alone.
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

    def look(self) -> int | None:
        """Hold the process to its limits; its exit status once it has ended."""
        code = self._process.poll()
        silence = self._listener.listen()
        if code is not None:
            self._listener.close()
            asked = self._overdue is not None or self._killed
            self._log.log(INFO if asked else WARNING, "worker ended", reason=self._reason(code))
        elif self._overdue is not None:
            if time.monotonic() > self._overdue:
                self.kill("it was told to leave and has not")
        elif hang := self._limits.hang_of(self._listener.latest, silence):
            self.kill(hang)
        elif growth := self._limits.growth_of(self._memory()):
            self._log.warning("worker told to leave", reason=growth)
            self.leave()
        return code

    @property
    def hears(self) -> bool:
        """Whether its broker answers it, as far as it has told."""
        return self._listener.latest.deaf < HARD_OF_HEARING

    def leave(self) -> None:
        """Have it finish or hand back its jobs and end; it is killed when it takes too long."""
        if self._overdue is None:
            self._overdue = time.monotonic() + self._limits.grace + KILL_AFTER
            self._process.terminate()

    def kill(self, reason: str) -> None:
        """End it at once, and what it has started."""
        if not self._killed:
            self._killed = True
            self._log.error("worker killed", reason=reason)
            with suppress(ProcessLookupError, PermissionError):  # macOS's answer for a zombie
                os.killpg(self._process.pid, signal.SIGKILL)

    def _reason(self, code: int) -> str:
        complaint = self._listener.latest.complaint
        return f"{describe(code)}: {complaint}" if complaint else describe(code)

    def _memory(self) -> int:
        """Bytes resident, of which nothing is wanted where there is no bound."""
        if not self._limits.memory:
            return 0
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0
