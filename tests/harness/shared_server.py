"""A Prefect server that all processes of a test session share: each would take 20 CPU-seconds."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from flows.stack.processes import serves
from tests.harness import prefect_database
from tests.harness.prefect_server import free_port

FOLDER = "FOLDER_SHARED_BY_TESTS"
"""Variable with the folder of the server, its address and its process id."""
START_SECONDS, STOP_SECONDS = 240.0, 30.0


def offer() -> None:
    """Make the folder, for this process and those that it starts."""
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="shared-by-tests-")


def address() -> str:
    """The address of its API. The first caller starts it, and it outlives the caller."""
    folder = Path(os.environ[FOLDER])
    known = folder / "address"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not known.exists():
            known.write_text(_start(folder), encoding="utf-8")
    return known.read_text(encoding="utf-8")


def end() -> None:
    """Stop it, if anyone has started it, and remove the folder."""
    folder = Path(os.environ.pop(FOLDER))
    if (file := folder / "pid").exists():
        server = psutil.Process(int(file.read_text(encoding="utf-8")))
        parts = [server, *server.children(recursive=True)]
        server.terminate()
        for left in psutil.wait_procs(parts, STOP_SECONDS)[1]:
            left.kill()
    shutil.rmtree(folder)


def _start(folder: Path) -> str:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    ours = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    prefect_database.provide(folder)
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
        env=ours
        | {
            "PREFECT_HOME": str(folder),
            "PREFECT_UI_API_URL": "/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    (folder / "pid").write_text(str(server.pid), encoding="utf-8")
    answers, deadline = serves(f"{api}/health"), time.monotonic() + START_SECONDS
    while not answers():
        assert server.poll() is None, "Prefect's server has ended"
        assert time.monotonic() < deadline, "Prefect's server does not answer"
        time.sleep(0.1)
    return api
