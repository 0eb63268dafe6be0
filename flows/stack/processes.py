"""The processes of a stack: checks that they answer, their programs, and the reaper."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from workers.processes.process import ProcessSpec


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


def reaper(passed: Sequence[int] = ()) -> ProcessSpec:
    """The process that ends our other children if we are killed."""
    command = [sys.executable, "-m", "flows.stack.reaper", str(os.getpid())]
    return ProcessSpec("the reaper", command, passed=passed, stop_seconds=5.0)


def program(name: str) -> str:
    """The path of a program beside our Python or on PATH; empty if there is none."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name) or ""
