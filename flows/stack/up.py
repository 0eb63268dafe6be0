"""The whole stack on one machine, without containers: `pressrun up`.

What is configured is used; what is not is started here and kept in the home. Each part is started
once the one before it answers, and they are stopped the other way round.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from flows.stack import services as parts
from flows.stack.embedded import (
    PREFECT_PASSWORD,
    anchored,
    quiet_prefect,
    require_prefect,
    variables,
    worker,
)
from flows.stack.processes import Part, Running, minder, running
from pipeline.errors import AlreadyUp, ConfigError, Unavailable
from pipeline.settings import Settings, load_settings
from workers.queue.messages import Queue
from workers.worker.devices import require_devices

ENVIRONMENT, LOCK = "up.env", "up.lock"
OURS = "  # started by pressrun up"
POLL_SECONDS = 1.0
"""Seconds between two looks at the parts."""


def up(
    devices: str | None,
    s3: bool,
    say: Callable[[str], None],
    ready: Callable[[dict[str, Any]], None],
) -> None:
    """Keep the stack up until SIGTERM or Ctrl-C, which stops all parts in order; a second one has
    them leave at once. `say` hears of each step, `ready` once what there is and where.

    Raises Unavailable where a part does not start, AlreadyUp where a stack of this home is up.
    """
    home = load_settings().home.absolute()
    try:
        with ExitStack() as outer:
            lock = outer.enter_context(_alone(home))
            stack = Stack(home, outer, say)
            outer.enter_context(_signals(stack))
            # it holds the lock too: until it has ended what a killed stack left, no other starts
            outer.enter_context(running(minder([lock])))
            try:
                stack.start(devices, s3)
                ready(stack.report())
                stack.watch()
            finally:
                say("stopping")
    except KeyboardInterrupt:
        say("stopped")


class Stack:
    """The parts that run, and the variables by which others find what they serve."""

    def __init__(self, home: Path, outer: ExitStack, say: Callable[[str], None]) -> None:
        self._home, self._outer, self._say = home, outer, say
        self._running = list[Running]()
        self._exports = dict[str, str]()

    def start(self, devices: str | None, s3: bool) -> None:
        """Start what is not configured, then what works with it.

        Raises Unavailable and ConfigError.
        """
        _forget(self._home / ENVIRONMENT)
        settings = load_settings()
        if s3 and settings.store.startswith("s3://"):
            raise ConfigError(f"--s3 would start a store, but PRESSRUN_STORE is {settings.store!r}")
        require_devices(devices or settings.device)
        require_prefect()
        if not settings.redis_url:
            self._serve(parts.redis(self._home, self._log("redis")))
        if s3:
            self._serve(parts.s3(self._home, self._log("s3")))
        if not os.environ.get("PREFECT_API_URL"):
            self._serve(parts.prefect(self._home, self._log("prefect")))
        settings = anchored(load_settings())
        self._write_down(variables(settings) | _given(PREFECT_PASSWORD))
        quiet_prefect(settings)
        self._start(_workers(settings, self._log("worker"), devices))
        self._start_flows()

    def report(self) -> dict[str, Any]:
        """What there is and where, without a secret."""
        settings, key = load_settings(), self._home / parts.PREFECT_KEY
        return {
            "prefect": os.environ["PREFECT_API_URL"].removesuffix("/api"),
            **({"prefect_password": f"in {key}"} if "PREFECT_API_URL" in self._exports else {}),
            "store": settings.store,
            "knowledge": settings.qdrant_url or str(settings.home / "knowledge"),
            "workers": len(_working(settings)),
            "logs": str(self._home / "logs"),
            "environment": str(self._home / ENVIRONMENT),
        }

    def watch(self) -> NoReturn:
        """Look after the parts, until a signal ends it."""
        while True:
            for each in self._running:
                each.look()
            time.sleep(POLL_SECONDS)

    def terminate(self) -> None:
        """Tell every part to leave, in no order."""
        for each in self._running:
            each.terminate()

    def _start_flows(self) -> None:
        """What runs flows that are started in Prefect's UI, and what it can run."""
        self._say("deployments are written")
        self._once(parts.DEPLOY, self._log("deploy"))
        self._start(parts.serving(os.environ["PREFECT_API_URL"], self._log("serve")))

    def _once(self, command: Sequence[str], log: Path) -> None:
        with log.open("wb") as output:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if done.returncode:
            raise Unavailable(f"{' '.join(command)} failed; see {log}")

    def _serve(self, service: parts.Service) -> None:
        self._start(service.part)
        self._exports |= service.exports
        os.environ.update(service.exports)

    def _start(self, part: Part) -> None:
        self._say(f"{part.name} is starting")
        begun = time.monotonic()
        self._running.append(self._outer.enter_context(running(part)))
        self._say(f"{part.name} answers after {time.monotonic() - begun:.1f} s")

    def _write_down(self, settings: dict[str, str]) -> None:
        """What other terminals need, for them and for the parts still to start."""
        os.environ.update(settings)
        lines = [
            f"export {name}={shlex.quote(value)}{OURS if name in self._exports else ''}\n"
            for name, value in sorted((settings | self._exports).items())
        ]
        parts.write_private(self._home / ENVIRONMENT, "".join(lines))

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"


def _workers(settings: Settings, log: Path, devices: str | None) -> Part:
    part = worker(settings, log, devices)
    return replace(part, answers=lambda: bool(_working(settings)), start_seconds=120.0)


def _working(settings: Settings) -> list[str]:
    return Queue.connect(settings.redis_url, settings.broker_url).workers()


@contextmanager
def _alone(home: Path) -> Iterator[int]:
    """The descriptor of a lock that one stack of this home can hold. Raises AlreadyUp."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            process = file.read()
            raise AlreadyUp(f"Process {process}; to use it: . {home / ENVIRONMENT}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


@contextmanager
def _signals(stack: Stack) -> Iterator[None]:
    """Inside, the first signal raises KeyboardInterrupt; each further one has all parts leave."""
    stopping = False

    def obey(*_: object) -> None:
        nonlocal stopping
        if stopping:
            stack.terminate()
        else:
            stopping = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, obey) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _given(name: str) -> dict[str, str]:
    return {name: os.environ[name]} if name in os.environ else {}


def _forget(environment: Path) -> None:
    """Drop what this terminal still has of a stack that was up: its services are not there now."""
    if not environment.exists():
        return
    for line in environment.read_text(encoding="utf-8").splitlines():
        if line.endswith(OURS):
            name, _, value = shlex.split(line, comments=True)[1].partition("=")
            if os.environ.get(name) == value:
                del os.environ[name]
