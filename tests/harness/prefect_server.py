"""A Prefect server with SQLite, and clients of its API."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from redis import Redis

from tests.harness import connected, prefect_database
from tests.harness.connected import Workdir
from workers.queue.leases import lease_key

LIMIT = 1800.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def api_client(url: str, auth: tuple[str, str] | None = None) -> httpx.Client:
    """A client of Prefect's API for its raw answers, with the retries of Prefect's own client.

    SQLite lets one write at a time, and the server answers 503 where that takes too long.
    """
    from prefect.client.base import PrefectHttpxSyncClient  # most tests need none of Prefect

    return PrefectHttpxSyncClient(base_url=url, auth=auth, timeout=60, raise_on_all_errors=False)


class Server:
    """A client of a Prefect server."""

    def __init__(self, workdir: Workdir, port: int) -> None:
        self.workdir = workdir
        self._client = api_client(f"http://127.0.0.1:{port}/api")
        self._redis = Redis.from_url(workdir.url)

    def answers(self) -> bool:
        """True once it is healthy."""
        try:
            return self._client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def deploy(self) -> None:
        """`pressrun deploy`."""
        process = self.workdir.start(sys.executable, "-m", "flows.cli", "deploy")
        if process.wait(LIMIT):
            raise RuntimeError(self.workdir.complaints())
        # its looks would count, too
        for name in ("reconcile/reconcile", "inbox/inbox"):
            found = self._get(f"/deployments/name/{name}")["id"]
            self._post(f"/deployments/{found}/pause_deployment", {})

    def start(self, parameters: dict[str, Any]) -> str:
        """Start a batch and return the flow run's id."""
        deployment = self._get("/deployments/name/generate/generate-batch")["id"]
        asked = {"parameters": parameters}
        return str(self._post(f"/deployments/{deployment}/create_flow_run", asked)["id"])

    def state(self, flow_run: str) -> str:
        """State type of a flow run."""
        return str(self._get(f"/flow_runs/{flow_run}")["state_type"])

    def cancel(self, flow_run: str) -> None:
        """Cancel a flow run as the UI's button does."""
        self._post(f"/flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})

    def artifact(self, run: str, flow_run: str) -> dict[str, Any] | None:
        """The run's progress artifact."""
        asked = {
            "artifacts": {"key": {"any_": [f"{run}-progress"]}, "flow_run_id": {"any_": [flow_run]}}
        }
        found = self._post("/artifacts/filter", asked)
        return found[0] if found else None

    def records(self, run: str) -> int:
        """Number of records of the run."""
        folder = self.workdir.folder / "out" / "runs" / run / "records"
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    def leases(self, run: str) -> bool:
        """True while a worker holds a lease of the run."""
        return next(self._redis.scan_iter(lease_key(run, "*"), count=1000), None) is not None

    def database_bytes(self) -> int:
        """Size of the database on disk, with its log."""
        return sum(
            file.stat().st_size for file in (self.workdir.folder / "prefect").glob("prefect.db*")
        )

    def _get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def _post(self, path: str, asked: dict[str, Any]) -> Any:
        return self._ask("POST", path, asked)

    def _ask(self, method: str, path: str, asked: dict[str, Any] | None) -> Any:
        answer = self._client.request(method, path, json=asked)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@contextmanager
def prefect(workdir: Workdir, port: int) -> Iterator[Server]:
    """A private Prefect server in the workdir, with SQLite."""
    words = ["-m", "prefect", "server", "start", "--port", str(port)]
    server = Server(workdir, port)
    prefect_database.provide(workdir.folder / "prefect")
    with connected.running(workdir.start(sys.executable, *words)) as process:
        connected.await_ready(server.answers, process, workdir)
        yield server


def free_port() -> int:
    """A free TCP port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
