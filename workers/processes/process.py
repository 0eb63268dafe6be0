"""A child process: started, awaited, watched, replaced after growing delays, stopped.

Worker processes and the services of a stack are both supervised by this class.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path

import psutil
import structlog

from pipeline.errors import Unavailable
from workers.processes.heartbeat import Heartbeat, Listener
from workers.processes.lifecycle import Backoff, Exit, Limits, describe

POLL_SECONDS = 0.05
"""Seconds between two looks at a process that starts or stops."""
LAST_WORDS = 500
"""Characters from the end of a log that are quoted when its process ends."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ProcessSpec:
    """A process to start, and the policies for it."""

    name: str
    command: Sequence[str]
    answers: Callable[[], bool] = lambda: True
    """The check by which `wait` tells that it is ready."""
    env: Mapping[str, str] | None = None
    """Its environment; None: ours."""
    cwd: Path | None = None
    log: Path | None = Path(os.devnull)
    """The file for its output; None: our output."""
    passed: Sequence[int] = ()
    """File descriptors to inherit."""
    start_seconds: float = 60.0
    stop_seconds: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    limits: Limits | None = None
    """If given, it sends heartbeats to a pipe, its last argument, and must keep these limits."""
    final: Collection[int] = ()
    """Exit codes after which no other process follows."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Fields of its lines in our log."""
    verbose: bool = False
    """Log starts and expected ends, too."""


class ManagedProcess:
    """The process of a spec. With each `poll` its limits are enforced, and one that has ended is
    replaced when its delay is over, until `leave`.

    It has a session of its own: a terminal's Ctrl-C reaches us alone, and it can be killed with the
    processes that it has started.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self.last_code: int = Exit.DONE
        """Exit status of the process that none follows."""
        self._spec, self._backoff = spec, Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: Listener | None = None
        self._closed = self._killed = False
        self._born = self._due = 0.0
        self._overdue: float | None = None
        self._log = log.bind(**spec.context)

    @property
    def running(self) -> bool:
        """True from the start of a process until `poll` finds that it has ended."""
        return self._process is not None

    @property
    def heartbeat(self) -> Heartbeat:
        """The latest one that the process sent; all zero before the first."""
        return self._listener.latest if self._listener else Heartbeat()

    def start(self) -> None:
        """Start the process. Raises OSError."""
        spec = self._spec
        command, passed = [*spec.command], [*spec.passed]
        if spec.log:
            spec.log.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as ours:
            output = ours.enter_context(spec.log.open("ab")) if spec.log else None
            if spec.limits:
                receiver, sender = os.pipe()
                ours.callback(os.close, sender)
                self._listener = Listener(receiver)
                command, passed = [*command, str(sender)], [*passed, sender]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output and subprocess.STDOUT,
                    env=spec.env,
                    cwd=spec.cwd,
                    pass_fds=passed,
                    start_new_session=True,
                )
            except OSError:
                self._close_pipe()
                raise
        self._born, self._overdue, self._killed = time.monotonic(), None, False
        self._log = log.bind(**spec.context, pid=self._process.pid)
        if spec.verbose:
            self._log.info(f"{spec.name} started")

    def wait(self) -> None:
        """Return once it answers. Raises Unavailable if it ends first or takes too long."""
        deadline = time.monotonic() + self._spec.start_seconds
        while not self._spec.answers():
            code = self._process.poll() if self._process else self.last_code
            if code is not None:
                raise Unavailable(f"{self._spec.name}: {self._with_last_words(describe(code))}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._spec.name}: {self._with_last_words('no answer')}")
            time.sleep(POLL_SECONDS)

    def poll(self) -> None:
        """Start a process if one is due; enforce the limits of one that runs; notice its end."""
        spec, process = self._spec, self._process
        if process is None:
            if not self._closed and time.monotonic() >= self._due:
                try:
                    self.start()
                except OSError as error:
                    self._delay(0.0, f"no {spec.name} could be started: {error}")
            return
        code = process.poll()
        silence = self._listener.listen() if self._listener else 0.0
        if code is not None:
            self._end(code)
        elif self._overdue is not None:
            if time.monotonic() > self._overdue:
                self.kill("it was told to leave and has not")
        elif spec.limits:
            memory = 0
            if spec.limits.memory:
                with suppress(psutil.NoSuchProcess):
                    memory = psutil.Process(process.pid).memory_info().rss
            if hang := spec.limits.hang_of(self.heartbeat, silence):
                self.kill(hang)
            elif growth := spec.limits.growth_of(memory):
                self._log.warning(f"{spec.name} told to leave", reason=growth)
                self._terminate_once()

    def leave(self) -> None:
        """Have the process end, and start no other; `poll` kills it if it takes too long."""
        self._closed = True
        self._terminate_once()

    def terminate(self) -> None:
        """Send SIGTERM, even if the process is leaving. Safe in a signal handler."""
        if self._process:
            self._process.send_signal(signal.SIGTERM)

    def kill(self, reason: str) -> None:
        """Kill the process and the processes that it has started."""
        if self._process and not self._killed:
            self._killed = True
            self._log.error(f"{self._spec.name} killed", reason=reason)
            with suppress(ProcessLookupError, PermissionError):  # macOS's answer for a zombie
                os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Have the process end, and return when it has."""
        self.leave()
        while self._process:
            self.poll()
            if self._process:
                time.sleep(POLL_SECONDS)

    def _terminate_once(self) -> None:
        if self._process and self._overdue is None:
            self._overdue = time.monotonic() + self._spec.stop_seconds
            self._process.terminate()

    def _end(self, code: int) -> None:
        spec, expected = self._spec, self._overdue is not None or self._killed
        if spec.verbose or not expected:
            reason = ": ".join(filter(None, (describe(code), self.heartbeat.problem)))
            level = INFO if expected else WARNING
            self._log.log(level, f"{spec.name} ended", reason=self._with_last_words(reason))
        self._process = None
        self._close_pipe()
        if self._closed or code in spec.final:
            self.last_code, self._closed = code, True
        else:
            self._delay(time.monotonic() - self._born, f"another {spec.name} follows")

    def _delay(self, lived: float, event: str) -> None:
        wait = self._backoff.after(lived)
        self._due = time.monotonic() + wait
        log.warning(event, **self._spec.context, seconds=wait)

    def _close_pipe(self) -> None:
        if self._listener:
            self._listener.close()
        self._listener = None

    def _with_last_words(self, reason: str) -> str:
        """The reason and the end of the process's own log."""
        text = ""
        if self._spec.log:
            with self._spec.log.open("rb") as file:
                file.seek(max(0, self._spec.log.stat().st_size - LAST_WORDS))
                text = file.read().decode(errors="replace").strip()
        return f"{reason}. {self._spec.log} ends: {text}" if text else reason


@contextmanager
def running(spec: ProcessSpec) -> Iterator[ManagedProcess]:
    """A process that answers, until the block ends. Raises Unavailable."""
    process = ManagedProcess(spec)
    process.start()
    try:
        process.wait()
        yield process
    finally:
        process.stop()
