"""The cost and speed of the Prefect side: the live artifact, the database, a cancellation.

A batch of jobs whose images cost nothing is started as a deployment on a Prefect server with
SQLite, run by `pressrun serve`, and worked on by supervised stand-in workers. `artifact_oldest_s`
is the highest age at which the run's progress artifact was ever seen while the flow run was
running; `prefect_db_growth_mb` is what the server's database has grown by when all is recorded.
With `--cancel` the flow run is set to Cancelling when so many rows are done, and resumed:
`cancel_idle_s` is the time until no worker has a job of the run in hand, `cancel_ended_s` until the
flow run has ended; `lost` and `executed_twice` are counted when the resumed run is finished.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, show
from flows.runs.reconcile import reconcile_run
from pipeline.settings import load_settings
from tests.harness import connected
from tests.harness.connected import Workdir
from tests.harness.jobs import write_jobs
from tests.harness.prefect_server import ENDED, LIMIT, Server, free_port, prefect

WORKERS = 2
RUN = "ui"
POLL_SECONDS = 0.1
RECORDED = 15.0
"""Seconds in which the server writes down what it has been told."""
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
    port = free_port()
    tally = folder / "tally"
    workdir = Workdir(
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
    with (
        prefect(workdir, port) as server,
        connected.redis(workdir),
        connected.workers(workdir, WORKERS),
    ):
        server.deploy()
        before = server.database_bytes()
        with connected.running(workdir.start(sys.executable, "-m", "flows.cli", "serve")):
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
                raise RuntimeError(f"the run does not end:\n{server.workdir.complaints()}")
            self._look(cancel)
            time.sleep(POLL_SECONDS)
        if self.state != ("CANCELLED" if cancel else "COMPLETED"):
            raise RuntimeError(
                f"the flow run ended as {self.state}:\n{server.workdir.complaints()}"
            )

    def figures(self) -> dict[str, Any]:
        """The measured seconds, and the number of updates."""
        figures = {"artifact_oldest_s": self.oldest, "artifact_updates": len(self.updates)}
        if self._cancelled:
            figures["cancel_idle_s"] = self._idle - self._cancelled
            figures["cancel_ended_s"] = self._ended - self._cancelled
        return figures

    def _look(self, cancel: int) -> None:
        self.state = self._server.state(self._flow_run)
        if artifact := self._server.artifact(RUN, self._flow_run):
            updated = datetime.fromisoformat(artifact["updated"])
            self.updates.add(artifact["updated"])
            if self.state == "RUNNING":
                self.oldest = max(self.oldest, (datetime.now(UTC) - updated).total_seconds())
        if cancel and not self._cancelled and self._server.records(RUN) >= cancel:
            self._cancelled = self._idle = time.monotonic()
            self._server.cancel(self._flow_run)
        if self._cancelled and self._server.leases(RUN):
            self._idle = time.monotonic()
        if self.state in ENDED:
            self._ended = time.monotonic()


if __name__ == "__main__":
    main()
