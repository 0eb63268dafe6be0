"""A line per second from a worker process to its supervisor, through an inherited pipe."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Self

INTERVAL = 1.0
BEGINNING = 60.0
"""Seconds that a process may need for its imports, beyond the usual, before its first line."""
LONGEST_COMPLAINT = 400
"""Bytes, so that a line is written whole: POSIX promises no more than 512."""


class Heartbeat(NamedTuple):
    """How a worker is: jobs in flight, seconds since its last step, seconds in which its broker
    owes it an answer, what it complains of.
    """

    in_flight: int = 0
    quiet: float = 0.0
    deaf: float = 0.0
    complaint: str = ""

    def line(self) -> bytes:
        """This pulse as one line."""
        complaint = " ".join(self.complaint.split()).encode()[:LONGEST_COMPLAINT]
        return f"{self.in_flight} {self.quiet:.2f} {self.deaf:.2f} ".encode() + complaint + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """The pulse that a line tells. Raises ValueError for any other line."""
        in_flight, quiet, deaf, complaint = line.decode(errors="replace").split(" ", 3)
        return cls(int(in_flight), float(quiet), float(deaf), complaint)


def send(pipe: int, pulse: Callable[[], Heartbeat], on_orphaned: Callable[[], None]) -> None:
    """Write a line per second, until nobody holds the pipe's other end any more."""
    while True:
        try:
            os.write(pipe, pulse().line())
        except BrokenPipeError:
            on_orphaned()
            return
        time.sleep(INTERVAL)


class Listener:
    """The supervisor's end of the pipe."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self.latest = Heartbeat()
        self._pipe, self._rest = pipe, b""
        self._heard = time.monotonic() + BEGINNING

    def listen(self) -> float:
        """Take in what has come; returns the seconds since the last line. They are negative while
        a process that has written none is only beginning.
        """
        while chunk := self._read():
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    self.latest = Heartbeat.read(line)
                    self._heard = time.monotonic()
        return time.monotonic() - self._heard

    def close(self) -> None:
        """Give the pipe up: a process that still holds the other end will notice."""
        os.close(self._pipe)

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe, 65536)
        except BlockingIOError:
            return b""
