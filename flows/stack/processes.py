"""Child processes: start them, wait until they answer, restart and stop them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog

from pipeline.errors import Unavailable
from workers.processes.lifecycle import Backoff, describe

POLL_SECONDS = 0.05
"""Seconds between two looks at a process that starts."""
LAST_WORDS = 500
"""Characters from the end of a log that are quoted when its process ends."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Part:
    """A process to start: its command, the check that it answers, and its time limits.

    Without a `log` its output is dropped; without an `env` it inherits ours.
    """

    name: str
    command: Sequence[str]
    answers: Callable[[], bool] = lambda: True
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log: Path | None = None
    start_seconds: float = 60.0
    stop_seconds: float = 10.0
    passed: Sequence[int] = field(default=())
    """File descriptors to inherit."""


class Running:
    """A running process; `look` restarts it if it has ended by itself."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._process = self._start()
        self._born, self._due = time.monotonic(), 0.0
        self._backoff = Backoff()

    def wait(self) -> None:
        """Return once it answers. Raises Unavailable if it ends first or takes too long."""
        deadline = time.monotonic() + self._part.start_seconds
        while not self._part.answers():
            if self._process.poll() is not None:
                raise Unavailable(f"{self._part.name}: {self._end()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._part.name}: no answer. {self._last_words()}".strip())
            time.sleep(POLL_SECONDS)

    def look(self) -> None:
        """Restart the process if it has ended, after growing waits."""
        if self._process.poll() is None:
            return
        if not self._due:
            wait = self._backoff.after(time.monotonic() - self._born)
            self._due = time.monotonic() + wait
            log.warning("another one follows", part=self._part.name, why=self._end(), seconds=wait)
        elif time.monotonic() >= self._due:
            self._process = self._start()
            self._born, self._due = time.monotonic(), 0.0

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Send SIGTERM and wait; kill it after `stop_seconds`."""
        self.terminate()
        try:
            self._process.wait(self._part.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._part.log:
            self._part.log.parent.mkdir(parents=True, exist_ok=True)
        # a session of its own: Ctrl-C reaches us alone, and we stop our children in order
        with (self._part.log or Path(os.devnull)).open("ab") as output:
            return subprocess.Popen(
                self._part.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._part.env,
                cwd=self._part.cwd,
                pass_fds=self._part.passed,
                start_new_session=True,
            )

    def _end(self) -> str:
        return f"{describe(self._process.returncode)}. {self._last_words()}".strip()

    def _last_words(self) -> str:
        if not self._part.log:
            return ""
        with self._part.log.open("rb") as log:
            log.seek(max(0, self._part.log.stat().st_size - LAST_WORDS))
            text = log.read().decode(errors="replace").strip()
        return f"{self._part.log} ends: {text}" if text else ""


@contextmanager
def running(part: Part) -> Iterator[Running]:
    """A process that answers, until the block ends. Raises Unavailable."""
    process = Running(part)
    try:
        process.wait()
        yield process
    finally:
        process.stop()


def serves(url: str, status: int = 200) -> Callable[[], bool]:
    """A check that `url` answers with this status."""
    # one client for all looks: each new one reads the certificates, for 40 ms of a core
    client = httpx.Client(timeout=2.0, limits=httpx.Limits(max_keepalive_connections=0))

    def answers() -> bool:
        try:
            return client.get(url).status_code == status
        except httpx.TransportError:
            return False

    return answers


def reaper(passed: Sequence[int] = ()) -> Part:
    """The process that ends our other children if we are killed."""
    command = [sys.executable, "-m", "flows.stack.reaper", str(os.getpid())]
    return Part("the reaper", command, passed=passed, stop_seconds=5.0)


def program(name: str) -> str:
    """The path of a program beside our Python or on PATH; empty if there is none."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name) or ""
