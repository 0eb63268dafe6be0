"""Embedded services: private ones in place of those that are not configured."""

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from flows.stack.environment import environment
from flows.stack.processes import reaper, serves
from flows.stack.redis_server import redis_binary
from pipeline.errors import ConfigError, Unavailable
from pipeline.settings import Settings, secret_file
from workers.processes.process import ProcessSpec, running
from workers.queue.messages import Queue

WORKER_STOP = 10.0
"""Seconds to stop beyond the grace period and the supervisor's own patience."""
PREFECT_PASSWORD, SERVER_PASSWORD = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
"""Variables with `user:password`, for Prefect's clients and for its server."""


@contextmanager
def services(settings: Settings, log: Path) -> Iterator[Settings]:
    """Settings with all services of a run: a private Redis if none is configured, and a private
    worker, which writes to `log`, if none listens. Raises Unavailable, ConfigError.

    No process that this one starts meanwhile outlives it, even if it is killed.
    """
    with ExitStack() as stack:
        stack.enter_context(running(reaper()))
        if not settings.redis_url:
            url = stack.enter_context(private_redis())
            settings = settings.model_copy(update={"redis_url": url})
        if not Queue.connect(settings.redis_url, settings.broker_url).workers():
            stack.enter_context(running(worker(settings, log)))
        yield settings


@contextmanager
def private_redis() -> Iterator[str]:
    """A Redis of our own on a unix socket, without a port; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="pressrun-redis-") as folder:
        socket = Path(folder) / "redis.sock"
        command = [redis_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", folder]
        command += ["--unixsocketperm", "600", "--save", "", "--appendonly", "no"]
        with running(ProcessSpec("the private Redis", command, socket.exists, start_seconds=10.0)):
            yield f"unix://{socket}"


@contextmanager
def private_prefect(settings: Settings) -> Iterator[str]:
    """A Prefect server of our own; yields the address of its API. Call it after `quiet_prefect`.

    Prefect's ephemeral mode would not do: a Ctrl-C in the terminal would reach its server too.
    """
    folder = _prefect_home(settings)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        api = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        spec = ProcessSpec(
            "the private Prefect server",
            [*_PREFECT_SERVER, "--fd", str(listening.fileno())],
            serves(f"{api}/health"),
            env=os.environ | _PREFECT_APP,
            cwd=folder,  # where no .env of another project lies
            log=folder / "server.log",
            start_seconds=120.0,
            passed=[listening.fileno()],
        )
        with running(spec):
            listening.close()  # or calls to a server that has ended would hang
            yield api


_PREFECT_SERVER = [sys.executable, "-m", "uvicorn", "--factory", "--log-level", "error"]
_PREFECT_SERVER += ["--lifespan", "on", "prefect.server.api.server:create_app"]
_PREFECT_APP = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
}
"""As Prefect's ephemeral mode has it: without a UI, a scheduler and other services."""


def worker(
    settings: Settings,
    log: Path,
    devices: str | None = None,
    base: Mapping[str, str] = os.environ,
) -> ProcessSpec:
    """Supervised workers of our own, with these settings in the environment `base`. They end too
    when this process ends without stopping them.

    One for each device, but a single one if Qdrant's local mode admits no second process.
    """
    command = [sys.executable, "-m", "flows.cli", "worker", "--parent", str(os.getpid())]
    if devices or not settings.qdrant_url:
        command += ["--devices", devices or settings.device]
    if port := settings.metrics_port:  # ours is taken
        settings = settings.model_copy(update={"metrics_port": port + 1})
    return ProcessSpec(
        "worker",
        command,
        env=environment(settings, base),
        log=log,
        stop_seconds=settings.grace_seconds + WORKER_STOP,
    )


def quiet_prefect(settings: Settings, **defaults: str) -> None:
    """Set `defaults` and our own for Prefect: its files in our home, a password, little logging, no
    telemetry. Variables that are set already keep their values.

    It is the environment that is set, before Prefect is imported, because its import makes its home
    and because its servers and workers are processes of their own.

    The client sends the password in the environment or its file. A server that is started for this
    process alone gets the same one, or a new one: its API runs commands, and any page in a browser
    on this machine can reach it.
    """
    for name, value in (prefect_defaults(_prefect_home(settings)) | defaults).items():
        os.environ.setdefault(name, value)
    given = os.environ.get(PREFECT_PASSWORD) or secret_file(PREFECT_PASSWORD)
    if not os.environ.get("PREFECT_API_URL"):
        given = given or os.environ.get(SERVER_PASSWORD) or new_prefect_password()
        os.environ[SERVER_PASSWORD] = given
    if given:
        os.environ[PREFECT_PASSWORD] = given


def _prefect_home(settings: Settings) -> Path:
    home = (settings.home / "prefect").resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes the last folder alone
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise ConfigError(
            f"PRESSRUN_HOME: {settings.home} cannot be written ({error.strerror}); name another."
        ) from error
    return home


def require_prefect(variables: Mapping[str, str] = os.environ) -> str:
    """The address of the Prefect server that is configured; empty without one.

    Raises ConfigError and Unavailable if Prefect's client could not use it.
    """
    url = variables.get("PREFECT_API_URL", "")
    if not url:
        return ""
    given = variables.get(PREFECT_PASSWORD) or secret_file(PREFECT_PASSWORD)
    name, _, password = given.partition(":")
    key = variables.get("PREFECT_API_KEY")
    try:
        found = httpx.get(
            f"{url.rstrip('/')}/{'health' if key else 'admin/version'}",
            timeout=20.0,  # a server that has just started is busy
            auth=(name, password) if name and not key else None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise ConfigError(
            f"PREFECT_API_URL: {url} is no address such as http://127.0.0.1:4200/api."
        ) from None
    except httpx.TransportError as error:
        raise Unavailable(
            f"PREFECT_API_URL: no Prefect server at {url} ({type(error).__name__}). Start"
            " it, or unset the variable: each run then starts a server of its own."
        ) from None
    if found.status_code in (401, 403):
        raise ConfigError(
            f"PREFECT_API_AUTH_STRING: the Prefect server at {url} wants another user:password,"
            " without quotes."
        )
    if found.is_server_error:
        raise Unavailable(
            f"PREFECT_API_URL: the Prefect server at {url} answers {found.status_code}; try again"
            " once it is well."
        )
    if not found.is_success or "json" not in found.headers.get("content-type", ""):
        raise ConfigError(
            f"PREFECT_API_URL: {url} is not the address of Prefect's API, which ends in /api."
        )
    return url


def prefect_defaults(home: Path) -> dict[str, str]:
    """Prefect's settings as variables, used where the environment has none."""
    return {
        "PREFECT_HOME": str(home),
        # its logs go to its server; the terminal is the command line's
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        # 2, 4, 8 and 16 seconds after the first try of each request
        "PREFECT_CLIENT_MAX_RETRIES": "4",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        # its own pages need no leave, and a page of another origin gets none
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "",
        "DO_NOT_TRACK": "1",
    }


def new_prefect_password() -> str:
    """A random `user:password` for a server of Prefect's."""
    return f"pressrun:{secrets.token_urlsafe(24)}"
