"""What the Prefect side costs and how fast it is: the live artifact, the database, a cancellation.

A batch of jobs whose images cost nothing is started as a deployment on a Prefect server with
SQLite, run by `pressrun serve`, and worked on by supervised stand-in workers. `artifact_oldest_s`
is the highest age at which the run's progress artifact was ever seen while the flow run was
running; `prefect_db_growth_mb` is what the server's database has grown by when all is recorded.
With `--cancel` the flow run is set to Cancelling when so many rows are done, and resumed:
`cancel_idle_s` is the time until no worker has a job of the run in hand, `cancel_ended_s` until the
flow run has ended; `lost` and `executed_twice` are counted when the resumed run is finished.
"""

import json
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from benchmarks import fleet
from benchmarks.common import arguments, show
from benchmarks.fleet import Desk
from benchmarks.orchestration import write_jobs
from flows.reconcile import reconcile_run
from pipeline.settings import load_settings
from workers.leases import lease_key

WORKERS = 2
RUN = "ui"
GLANCE = 0.1
RECORDED = 15.0
"""Seconds in which the server writes down what it has been told."""
LIMIT = 1800.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SETTINGS = {
    "PRESSRUN_WINDOW": "256",
    "PRESSRUN_CONCURRENCY": "4",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.02, help="that each image takes")
    parser.add_argument("--cancel", type=int, default=0, help="cancel when so many rows are done")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        figures = measure(given.rows, given.seconds, given.cancel, Path(folder))
    show("Prefect", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int, seconds: float, cancel: int, folder: Path) -> dict[str, Any]:
    """Run so many jobs from a deployment; cancel the run and resume it where that is asked."""
    port = _free_port()
    tally = folder / "tally"
    desk = Desk(
        folder,
        SETTINGS
        | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "STAND_IN_SECONDS": str(seconds),
            "STAND_IN_TALLY": str(tally),
        },
    )
    write_jobs(folder / "jobs.csv", rows)
    with prefect(desk, port) as server, fleet.redis(desk), fleet.workers(desk, WORKERS):
        server.deploy()
        before = server.database_bytes()
        with fleet.running(desk.start(sys.executable, "-m", "flows.cli", "serve")):
            begun = time.monotonic()
            asked = {"run": RUN, "jobs": str(folder / "jobs.csv")}
            first = _Watched(server, server.start(asked), cancel)
            figures = first.figures()
            if cancel:
                again = _Watched(server, server.start({"run": RUN}), 0)
                figures["artifact_oldest_s"] = max(first.oldest, again.oldest)
            taken = time.monotonic() - begun
        time.sleep(RECORDED)
        growth = (server.database_bytes() - before) / 2**20
    report = reconcile_run(RUN, load_settings(store=str(folder / "out")), safe_age=0)
    executions = Counter(tally.read_text(encoding="utf-8").split())
    return {
        "rows": rows,
        **figures,
        "prefect_db_growth_mb": growth,
        "run_seconds": taken,
        "lost": report["lost"],
        "unexpected": report["unexpected"],
        "executed_twice": sum(count > 1 for count in executions.values()),
    }


class _Watched:
    """One flow run, looked at until it ends."""

    def __init__(self, server: "Server", flow_run: str, cancel: int) -> None:
        self.oldest, self.updates = 0.0, set[str]()
        self._server, self._flow_run = server, flow_run
        self._cancelled = self._idle = self._ended = 0.0
        deadline = time.monotonic() + LIMIT
        while not self._ended:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the run does not end:\n{server.desk.complaints()}")
            self._look(cancel)
            time.sleep(GLANCE)
        if self.state != ("CANCELLED" if cancel else "COMPLETED"):
            raise RuntimeError(f"the flow run ended as {self.state}:\n{server.desk.complaints()}")

    def figures(self) -> dict[str, Any]:
        """What was seen."""
        figures = {"artifact_oldest_s": self.oldest, "artifact_updates": len(self.updates)}
        if self._cancelled:
            figures["cancel_idle_s"] = self._idle - self._cancelled
            figures["cancel_ended_s"] = self._ended - self._cancelled
        return figures

    def _look(self, cancel: int) -> None:
        self.state = self._server.state(self._flow_run)
        if artifact := self._server.artifact(self._flow_run):
            updated = datetime.fromisoformat(artifact["updated"])
            self.updates.add(artifact["updated"])
            if self.state == "RUNNING":
                self.oldest = max(self.oldest, (datetime.now(UTC) - updated).total_seconds())
        if cancel and not self._cancelled and self._server.records() >= cancel:
            self._cancelled = self._idle = time.monotonic()
            self._server.cancel(self._flow_run)
        if self._cancelled and self._server.leases():
            self._idle = time.monotonic()
        if self.state in ENDED:
            self._ended = time.monotonic()


class Server:
    """A Prefect server, asked through its API."""

    def __init__(self, desk: Desk, port: int) -> None:
        self.desk = desk
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=60)
        self._redis = Redis.from_url(desk.url)

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            return self._client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def deploy(self) -> None:
        """`pressrun deploy`."""
        process = self.desk.start(sys.executable, "-m", "flows.cli", "deploy")
        if process.wait(LIMIT):
            raise RuntimeError(self.desk.complaints())
        # its looks would count, too
        for name in ("reconcile/reconcile", "inbox/inbox"):
            found = self._get(f"/deployments/name/{name}")["id"]
            self._post(f"/deployments/{found}/pause_deployment", {})

    def start(self, parameters: dict[str, Any]) -> str:
        """Start a batch; answers the flow run's id."""
        deployment = self._get("/deployments/name/generate/generate-batch")["id"]
        asked = {"parameters": parameters}
        return str(self._post(f"/deployments/{deployment}/create_flow_run", asked)["id"])

    def state(self, flow_run: str) -> str:
        """How the flow run stands."""
        return str(self._get(f"/flow_runs/{flow_run}")["state_type"])

    def cancel(self, flow_run: str) -> None:
        """What the UI's button does."""
        self._post(f"/flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})

    def artifact(self, flow_run: str) -> dict[str, Any] | None:
        """The run's progress artifact."""
        asked = {
            "artifacts": {"key": {"any_": [f"{RUN}-progress"]}, "flow_run_id": {"any_": [flow_run]}}
        }
        found = self._post("/artifacts/filter", asked)
        return found[0] if found else None

    def records(self) -> int:
        """How many rows of the run are done."""
        folder = self.desk.folder / "out" / "runs" / RUN / "records"
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    def leases(self) -> bool:
        """Whether a worker has a job of the run in hand."""
        return next(self._redis.scan_iter(lease_key(RUN, "*"), count=1000), None) is not None

    def database_bytes(self) -> int:
        """What the database takes on disk, with its log."""
        return sum(
            file.stat().st_size for file in (self.desk.folder / "prefect").glob("prefect.db*")
        )

    def _get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def _post(self, path: str, asked: dict[str, Any]) -> Any:
        return self._ask("POST", path, asked)

    # SQLite lets one write at a time, and Prefect answers 503 where that takes too long
    @retry(
        retry=retry_if_exception_type(httpx.HTTPStatusError),
        wait=wait_fixed(0.5),
        stop=stop_after_attempt(20),
    )
    def _ask(self, method: str, path: str, asked: dict[str, Any] | None) -> Any:
        answer = self._client.request(method, path, json=asked)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@contextmanager
def prefect(desk: Desk, port: int) -> Iterator[Server]:
    """A Prefect server of the desk's own, with SQLite."""
    words = ["-m", "prefect", "server", "start", "--port", str(port)]
    server = Server(desk, port)
    with fleet.running(desk.start(sys.executable, *words)) as process:
        fleet.await_ready(server.answers, process, desk)
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
