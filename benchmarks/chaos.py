"""The balance of rows, records and images while workers die: half are killed, again and again.

A batch of short jobs goes through the command line, Redis, supervised workers and a store on disk;
every few seconds half of the workers that live get SIGKILL, and their supervisor starts others.
Afterwards every row is compared with its record and every record with its image. `lost`,
`duplicated`, `recovered` and `unexpected` are the reconciler's counters; `executed_again` are the
jobs that were executed more than once, because their worker had died; `executions` are all of them.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import arguments, show
from flows.cli.output import FAILED_ROWS
from flows.runs.reconcile import reconcile_run
from pipeline.record import Status
from pipeline.settings import load_settings
from tests.harness import connected
from tests.harness.connected import Process, Workdir
from tests.harness.jobs import write_jobs

WORKERS = 4
RUN = "chaos"
EVERY = 3.0
SECONDS = 0.2
SETTINGS = {
    "STAND_IN_SECONDS": str(SECONDS),
    "PRESSRUN_WINDOW": "1024",
    # a shard ends with its last job, which may have to wait for a dead worker's lease to run out
    "PRESSRUN_SHARD": "1000",
}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="which workers are killed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        figures = measure(given.jobs, Path(folder), random.Random(given.seed))
    show("Workers killed", figures)
    if given.json:
        print(json.dumps(figures))


def measure(jobs: int, folder: Path, chance: random.Random) -> dict[str, Any]:
    """Run so many jobs under fire; answers the counters and how the jobs ended."""
    tally = folder / "tally"
    workdir = Workdir(folder, SETTINGS | {"STAND_IN_TALLY": str(tally)})
    write_jobs(folder / "jobs.csv", jobs)
    with connected.redis(workdir), connected.workers(workdir, WORKERS) as supervisor:
        begun = time.monotonic()
        kills, summary = _run(workdir, supervisor, chance)
        seconds = time.monotonic() - begun
    executions = Counter(tally.read_text(encoding="utf-8").split())
    report = reconcile_run(RUN, load_settings(store=str(folder / "out")), safe_age=0)
    return {
        "jobs": jobs,
        **{status.value: summary[status.value] for status in Status},
        "lost": report["lost"],
        "duplicated": report["duplicated"],
        "recovered": report["recovered"],
        "executed_again": sum(count > 1 for count in executions.values()),
        "unexpected": report["unexpected"],
        "executions": executions.total(),
        "kills": kills,
        "seconds": seconds,
    }


def _run(
    workdir: Workdir, supervisor: Process, chance: random.Random
) -> tuple[int, dict[str, Any]]:
    """The whole run, and how many workers were killed meanwhile."""
    answer, kills = workdir.folder / "answer", 0
    words = ["-m", "flows.cli", "run", "jobs.csv", "--run", RUN, "--json"]
    with connected.running(workdir.start(sys.executable, *words, output=answer)) as process:
        while process.poll() is None:
            time.sleep(EVERY)
            if (workdir.folder / "tally").exists():
                kills += _kill_half(supervisor, chance)
    if process.returncode not in (0, FAILED_ROWS):
        raise RuntimeError(f"the run ended with {process.returncode}:\n{workdir.complaints()}")
    summary: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8").splitlines()[-1])
    return kills, summary


def _kill_half(supervisor: Process, chance: random.Random) -> int:
    alive = [worker for worker in psutil.Process(supervisor.pid).children() if _lives(worker)]
    victims = chance.sample(alive, len(alive) // 2)
    for worker in victims:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    return len(victims)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
