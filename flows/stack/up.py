"""The whole stack on one machine, without containers: `pressrun up`.

Configured services are used, the others are started here, with their data in the home. Each part is
started once the one before it answers; they are stopped in reverse order.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from flows.stack import services as parts
from flows.stack.embedded import PREFECT_PASSWORD, require_prefect, worker
from flows.stack.environment import anchored, environment, known_settings, variables
from flows.stack.processes import reaper
from pipeline import masking
from pipeline.errors import AlreadyUp, ConfigError, Unavailable
from pipeline.settings import Settings, load_settings
from workers.processes.process import ManagedProcess, ProcessSpec, running
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
    """Keep the stack up until SIGTERM or Ctrl-C, which stops all parts in order; a second signal
    ends them at once. `say` is called with each step, `ready` once with the report.

    Raises Unavailable if a part does not start, AlreadyUp if a stack of this home is up.
    """
    home = load_settings().home.absolute()
    try:
        with ExitStack() as outer:
            lock = outer.enter_context(_alone(home))
            stack = Stack(home, outer, say)
            outer.enter_context(_signals(stack))
            # it inherits the lock: no other stack starts until it has ended a killed one's rest
            outer.enter_context(running(reaper([lock])))
            try:
                stack.start(devices, s3)
                ready(stack.report())
                stack.watch()
            finally:
                say("stopping")
    except KeyboardInterrupt:
        say("stopped")


class Stack:
    """The running parts. Their addresses are in `_settings`, in the `_environment` of the parts
    still to start and, as the `_exports`, in a file for other terminals.
    """

    def __init__(self, home: Path, outer: ExitStack, say: Callable[[str], None]) -> None:
        self._home, self._outer, self._say = home, outer, say
        self._running = list[ManagedProcess]()
        self._exports = dict[str, str]()
        gone = _left_over(home / ENVIRONMENT)
        self._environment = {k: text for k, text in os.environ.items() if k not in gone}
        fields = [name for name in Settings.model_fields if f"PRESSRUN_{name.upper()}" in gone]
        self._settings = load_settings(**{n: Settings.model_fields[n].default for n in fields})

    def start(self, devices: str | None, s3: bool) -> None:
        """Start the services that are not configured, then workers and flows.

        Raises Unavailable and ConfigError.
        """
        settings = self._settings
        if s3 and settings.store.startswith("s3://"):
            raise ConfigError(f"--s3 would start a store, but PRESSRUN_STORE is {settings.store!r}")
        require_devices(devices or settings.device)
        require_prefect(self._environment)
        if not settings.redis_url:
            self._serve(parts.redis(self._home, self._log("redis")))
        if s3:
            self._serve(parts.s3(self._home, self._log("s3")))
        if not self._environment.get("PREFECT_API_URL"):
            self._serve(parts.prefect(self._home, self._log("prefect"), self._environment))
        self._settings = settings = anchored(self._settings)
        self._environment = environment(settings, self._environment)
        self._write_environment()
        workers = worker(settings, self._log("worker"), devices, self._environment)
        self._start(replace(workers, answers=lambda: bool(_working(settings)), start_seconds=120.0))
        self._say("deployments are written")
        log = self._log("deploy")
        with log.open("wb") as output:
            done = subprocess.run(
                parts.DEPLOY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        if done.returncode:
            raise Unavailable(f"{' '.join(parts.DEPLOY)} failed; see {log}")
        self._start(parts.serving(self._environment, self._log("serve")))

    def report(self) -> dict[str, Any]:
        """The addresses and folders of the stack, without secrets."""
        settings, key = self._settings, self._home / parts.PREFECT_KEY
        return {
            "prefect": self._environment["PREFECT_API_URL"].removesuffix("/api"),
            **({"prefect_password": f"in {key}"} if "PREFECT_API_URL" in self._exports else {}),
            "store": settings.store,
            "knowledge": settings.qdrant_url or str(settings.home / "knowledge"),
            "workers": len(_working(settings)),
            "logs": str(self._home / "logs"),
            "environment": str(self._home / ENVIRONMENT),
        }

    def watch(self) -> NoReturn:
        """Restart parts that end, until a signal stops it."""
        while True:
            for each in self._running:
                each.poll()
            time.sleep(POLL_SECONDS)

    def terminate(self) -> None:
        """Send SIGTERM to every part, in no order."""
        for each in self._running:
            each.terminate()

    def _serve(self, service: parts.Service) -> None:
        self._start(service.spec)
        self._exports |= service.exports
        self._environment |= service.exports
        known = known_settings()
        changed = {
            name.removeprefix("PRESSRUN_").lower(): text
            for name, text in service.exports.items()
            if name in known
        }
        self._settings = self._settings.model_copy(update=changed)
        masking.remember(self._settings.secrets())
        masking.remember(masking.secrets_in(service.exports))

    def _start(self, spec: ProcessSpec) -> None:
        self._say(f"{spec.name} is starting")
        begun = time.monotonic()
        self._running.append(self._outer.enter_context(running(spec)))
        self._say(f"{spec.name} answers after {time.monotonic() - begun:.1f} s")

    def _write_environment(self) -> None:
        """Write the stack's variables for other terminals."""
        exported = variables(self._settings) | self._exports
        if given := self._environment.get(PREFECT_PASSWORD):
            exported[PREFECT_PASSWORD] = given
        lines = [
            f"export {name}={shlex.quote(value)}{OURS if name in self._exports else ''}\n"
            for name, value in sorted(exported.items())
        ]
        parts.write_private(self._home / ENVIRONMENT, "".join(lines))

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"


def _working(settings: Settings) -> list[str]:
    return Queue.connect(settings.redis_url, settings.broker_url).workers()


@contextmanager
def _alone(home: Path) -> Iterator[int]:
    """The descriptor of the lock that only one stack of this home holds. Raises AlreadyUp."""
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
    """In the block the first signal raises KeyboardInterrupt, each further one ends all parts."""
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


def _left_over(file: Path) -> set[str]:
    """The names of this terminal's variables of an earlier stack, whose services are gone."""
    names = set[str]()
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        if line.endswith(OURS):
            name, _, value = shlex.split(line, comments=True)[1].partition("=")
            if os.environ.get(name) == value:
                names.add(name)
    return names
