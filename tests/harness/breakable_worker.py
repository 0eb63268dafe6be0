"""A stand-in worker with a log and fault points.

A fork server starts it quickly; `python -m tests.harness.breakable_worker FD` is for a
supervisor. The folder BREAKABLE_WORKDIR holds the log `done.jsonl`, with a line for each execution
and each record that was written, and the armed fault points: a file `POINT.SIGNAL` is removed by
the first process that reaches the point, and sends it that signal.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import kombu.transport.redis  # noqa: F401 - before its clock is set
import numpy as np
from celery.signals import worker_ready

import workers.queue.celery_app
from pipeline.job import ImageArray, RenderRequest
from pipeline.ports import Ports, Pruner, Store
from pipeline.record import RunSpec
from pipeline.settings import Settings
from pipeline.watchdog import beat
from tests.harness.stand_in import StandInAssembly
from workers.queue import leases
from workers.worker.main import main

LEASE_SECONDS = 2.0
POISON = "poison"
"""A job with these keywords takes its worker along whenever it is rendered."""
IMPATIENT = {"socket_timeout": 3.0, "health_check_interval": 2}
"""Celery notices a half-open connection sooner; with BREAKABLE_BROKER_SILENCE never."""


def work(pipe: Connection, env: Mapping[str, str]) -> None:
    """Be a worker in this environment; heartbeats go to the pipe."""
    os.environ.update(env)
    serve(pipe.fileno())


def serve(pipe: int) -> NoReturn:
    """Be a worker with short leases.

    BREAKABLE_CLOCK is the error of its clock in seconds, BREAKABLE_VISIBILITY the time in seconds
    for which the broker lets it keep a message.
    """
    leases.LEASE_SECONDS = LEASE_SECONDS
    options = workers.queue.celery_app._TRANSPORT
    options["visibility_timeout"] = float(
        os.environ.get("BREAKABLE_VISIBILITY", options["visibility_timeout"])
    )
    _set_clock(float(os.environ.get("BREAKABLE_CLOCK", 0)))
    options.update(IMPATIENT)
    if "BREAKABLE_BROKER_SILENCE" in os.environ:
        options.update(socket_timeout=None, health_check_interval=0)
    worker_ready.connect(_log_ready, weak=False)
    main(pipe, BreakableAssembly)


def _set_clock(off: float) -> None:
    """Shift the clock of every module that has imported `time.time`."""
    right = time.time

    def wrong() -> float:
        return right() + off

    for module in list(sys.modules.values()) if off else ():
        for name in [name for name, value in vars(module).items() if value is right]:
            setattr(module, name, wrong)


def _log_ready(**_: object) -> None:
    event(ready=True)


def workdir() -> Path:
    """The folder of the log and the fault points."""
    return Path(os.environ["BREAKABLE_WORKDIR"])


def event(**fields: Any) -> None:
    """Append a line to the log; short lines are written whole, also beside other writers."""
    line = json.dumps(fields | {"pid": os.getpid(), "at": time.time()}) + "\n"
    log = os.open(workdir() / "done.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)


def reach(point: str) -> None:
    """Send this process the signal that the fault point is armed with, if any."""
    for number in (signal.SIGKILL, signal.SIGSTOP):
        try:
            (workdir() / f"{point}.{number.name}").unlink()
        except FileNotFoundError:
            continue
        event(signalled=point)
        # sent to the process it could reach another thread first, and this one would go on
        signal.pthread_kill(threading.get_ident(), number)


class ShadedRenderer:
    """The Renderer port: a flat colour, a little different in each process, as devices are."""

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """An image for each seed; half of the wait is before the fault point, half after it."""
        seconds = float(os.environ["STAND_IN_SECONDS"])
        event(rendered=request.prompt)
        time.sleep(seconds / 2)
        reach("render")
        if request.prompt == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds / 2)
        beat()
        shape = (request.height, request.width, 3)
        shade = os.getpid() % 200 / 255
        return [np.full(shape, shade, np.float32) for _ in request.seeds]


class InterceptedStore:
    """A store with fault points after each image, before each record and after it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        """Write, with a fault point before a record and after any blob."""
        if "/records/" in key:
            reach("before_record")
        written = self._store.put(key, data, content_type=content_type, new=new)
        if "/records/" in key and written:
            event(recorded=Path(key).stem, sha256=hashlib.sha256(data).hexdigest())
        reach("after_record" if "/records/" in key else "after_image")
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class BreakableAssembly(StandInAssembly):
    """Real records behind fault points, and ports that cost nothing but time."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._store = InterceptedStore(self._store)

    def ports(self, spec: RunSpec) -> Ports:
        """The ports of any run."""
        return replace(super().ports(spec), renderer=ShadedRenderer())

    def close(self) -> None:
        """Close it, and log that."""
        super().close()
        event(closed=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
