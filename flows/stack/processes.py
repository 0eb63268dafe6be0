"""Processes of ours: started, waited for until they answer, looked after, stopped."""

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
"""Characters of a log that tell why its process has ended."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Part:
    """One process: its command, how to tell that it answers, and how long both ends may take.

    Without a `log` what it says is lost; without an `env` it has ours.
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
    """Descriptors that it inherits."""


class Running:
    """A part's process; where it ends by itself, `look` has another one follow."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._process = self._start()
        self._born, self._due = time.monotonic(), 0.0
        self._backoff = Backoff()

    def wait(self) -> None:
        """Return once it answers. Raises Unavailable where it ends first, or takes too long."""
        deadline = time.monotonic() + self._part.start_seconds
        while not self._part.answers():
            if self._process.poll() is not None:
                raise Unavailable(f"{self._part.name}: {self._end()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._part.name}: no answer. {self._last_words()}".strip())
            time.sleep(POLL_SECONDS)

    def look(self) -> None:
        """See whether it lives; start another one where it does not, after ever longer waits."""
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
        """Tell it to leave."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Tell it to leave and wait until it has; it is killed when it takes too long."""
        self.terminate()
        try:
            self._process.wait(self._part.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._part.log:
            self._part.log.parent.mkdir(parents=True, exist_ok=True)
        # a session of its own: Ctrl-C reaches us alone, who then stop our children in order
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
            said = log.read().decode(errors="replace").strip()
        return f"{self._part.log} ends: {said}" if said else ""


@contextmanager
def running(part: Part) -> Iterator[Running]:
    """A part that answers, until the block ends. Raises Unavailable."""
    process = Running(part)
    try:
        process.wait()
        yield process
    finally:
        process.stop()


def serves(url: str, status: int = 200) -> Callable[[], bool]:
    """Tells whether something answers at `url` with this status."""

    def answers() -> bool:
        try:
            return httpx.get(url, timeout=2.0).status_code == status
        except httpx.TransportError:
            return False

    return answers


def minder(passed: Sequence[int] = ()) -> Part:
    """What ends our other children where we are killed."""
    command = [sys.executable, "-m", "flows.stack.reaper", str(os.getpid())]
    return Part("the minder", command, passed=passed, stop_seconds=5.0)


def program(name: str) -> str:
    """A program beside our Python or on PATH, or nothing."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name) or ""
