"""Signs of life: from a worker to its supervisor by a pipe, from the supervisor by a file."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

INTERVAL = 1.0
"""Seconds between heartbeats of either kind."""
STARTUP = 60.0
"""Extra seconds for a process's imports, before its first heartbeat is due."""
MAX_PROBLEM = 400
"""Bytes. A line stays below 512, the most that POSIX promises to write to a pipe at once."""


class Heartbeat(NamedTuple):
    """A worker's state: jobs in flight, seconds since its last step, seconds that its broker has
    owed it an answer, and the problem that makes it leave.
    """

    in_flight: int = 0
    quiet: float = 0.0
    broker_silence: float = 0.0
    problem: str = ""

    def line(self) -> bytes:
        """The heartbeat as one line."""
        problem = " ".join(self.problem.split()).encode()[:MAX_PROBLEM]
        return f"{self.in_flight} {self.quiet:.2f} {self.broker_silence:.2f} ".encode() + (
            problem + b"\n"
        )

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Parse a line without its newline. Raises ValueError."""
        in_flight, quiet, silence, problem = line.decode(errors="replace").split(" ", 3)
        return cls(int(in_flight), float(quiet), float(silence), problem)


def send(pipe: int, heartbeat: Callable[[], Heartbeat], on_orphaned: Callable[[], None]) -> None:
    """Write a line per second until the pipe has no reader, then call `on_orphaned`."""
    while True:
        try:
            os.write(pipe, heartbeat().line())
        except BrokenPipeError:
            on_orphaned()
            return
        time.sleep(INTERVAL)


class Listener:
    """The supervisor's end of a worker's pipe."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self.latest = Heartbeat()
        self._pipe, self._rest = pipe, b""
        self._heard = time.monotonic() + STARTUP

    def listen(self) -> float:
        """Read all that has arrived and return the seconds since the latest line: negative while a
        process that has written none is still starting up.
        """
        with suppress(BlockingIOError):
            while chunk := os.read(self._pipe, 65536):
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    with suppress(ValueError):
                        self.latest = Heartbeat.read(line)
                        self._heard = time.monotonic()
        return time.monotonic() - self._heard

    def close(self) -> None:
        """Close the pipe; a process that still writes to it then knows that it is an orphan."""
        os.close(self._pipe)


class HeartbeatFile:
    """`worker.json` in the home: a supervisor's sign of life for probes on the same machine."""

    def __init__(self, home: Path) -> None:
        self._file = home / "worker.json"
        self._due = 0.0

    def beat(self, alive: int, wanted: int) -> None:
        """Write it, once a second at most. A full disk or a missing folder is ignored."""
        # the clock of the machine, not of the process: a probe compares it
        now = time.monotonic()
        if now >= self._due:
            self._due = now + INTERVAL
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                draft = self._file.with_suffix(".new")
                draft.write_text(json.dumps({"at": now, "alive": alive, "wanted": wanted}))
                draft.replace(self._file)

    def end(self) -> None:
        """Remove it: the supervisor has ended."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The latest one; empty without one, or if it is damaged."""
        try:
            beat = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return beat if isinstance(beat, dict) else {}
