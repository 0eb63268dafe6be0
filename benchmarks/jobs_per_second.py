"""The rate of the machinery around the models: jobs per second, memory, a second submission.

A batch of jobs whose images cost nothing goes through the command line, Redis, supervised
workers and a store in the temporary folder, with every promise kept. Where that folder (TMPDIR) is
on a disk, the disk's way with small files that are synced one by one counts too, which the bare
task has none of. Beside it, in the same run, half before and
half after, stands a bare Celery task that does nothing, published and consumed the same way.
`jobs_per_s` counts from the first record to the last; opening and publishing are reported beside
it. Memory is resident memory: `growth` is the median of the last tenth of its readings over that
of the first tenth, less one, from the first record to the end of the process.
"""

import json
import os
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
from redis import Redis

from benchmarks import bare_celery
from benchmarks.common import arguments, show
from benchmarks.jobfile_speed import Memory
from tests.harness import connected
from tests.harness.connected import Process, Workdir
from tests.harness.jobs import write_jobs

WORKERS = 4
RUN = "orchestration"
RECORDS = Path("out", "runs", RUN, "records")
PAUSE = 0.25
# as for any batch of such short jobs: what is sent at once keeps every worker busy for a while, and
# threads that only pass the interpreter's lock around are too many
SETTINGS = {"PRESSRUN_WINDOW": "1024", "PRESSRUN_SHARD": "500", "PRESSRUN_CONCURRENCY": "1"}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        figures = measure(given.rows, Path(folder))
    show("Orchestration", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Run so many jobs, and a bare task as often; answers rates, memory and times."""
    before, workdir, after = (
        Workdir(folder / name, SETTINGS) for name in ("before", "run", "after")
    )
    for one in (before, workdir, after):
        one.folder.mkdir()
    write_jobs(workdir.folder / "jobs.csv", rows)
    rates = [bare_celery.messages_per_second(before, rows // 2, WORKERS)]
    with connected.redis(workdir), connected.workers(workdir, WORKERS) as supervisor:
        figures = _run(workdir, rows, supervisor)
    rates.append(bare_celery.messages_per_second(after, rows // 2, WORKERS))
    return {
        **figures,
        "bare_tasks_per_s": mean(rates),
        "ratio_to_bare": figures["jobs_per_s"] / mean(rates),
    }


def _run(workdir: Workdir, rows: int, supervisor: Process) -> dict[str, Any]:
    first = _submit(workdir, supervisor)
    with closing(Redis.from_url(workdir.url)) as client:
        redis_peak: int = client.info("memory")["used_memory_peak"]
    again = _submit(workdir, supervisor)
    assert first.summary["accepted"] == again.summary["accepted"] == rows, first.summary
    work = _work(workdir)
    return {
        "rows": rows,
        "jobs_per_s": rows / work.seconds,
        "flow_memory_growth": first.flow.growth() - 1,
        "worker_memory_growth": max(memory.growth() for memory in first.workers.values()) - 1,
        "redis_peak_mb": redis_peak / 2**20,
        "flow_peak_mb": first.flow.peak / 2**20,
        "worker_peak_mb": max(memory.peak for memory in first.workers.values()) / 2**20,
        "opening_seconds": work.begun - first.begun,
        "working_seconds": work.seconds,
        "publishing_seconds": first.begun + first.seconds - work.ended,
        "run_seconds": first.seconds,
        "resubmit_seconds": again.seconds,
        "resubmit_ratio": again.seconds / first.seconds,
        "task_runs": task_runs(workdir),
    }


@dataclass(frozen=True)
class Work:
    """When the first and the last record were written, in seconds since the epoch."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """The seconds that the jobs took."""
        return self.ended - self.begun


def _work(workdir: Workdir) -> Work:
    with os.scandir(workdir.folder / RECORDS) as records:
        times = [record.stat().st_mtime for record in records]
    return Work(min(times), max(times))


@dataclass
class Submission:
    """One `pressrun run`: what it answered, how long it took, and who held how much memory."""

    begun: float
    seconds: float
    summary: dict[str, Any]
    flow: Memory
    workers: dict[int, Memory]


def _submit(workdir: Workdir, supervisor: Process) -> Submission:
    words = ["-m", "flows.cli", "run", "jobs.csv", "--run", RUN, "--json"]
    answer = workdir.folder / "answer"
    answer.unlink(missing_ok=True)
    begun, flow, workers = time.time(), Memory(), defaultdict[int, Memory](Memory)
    with connected.running(workdir.start(sys.executable, *words, output=answer)) as process:
        while process.poll() is None:
            if (workdir.folder / RECORDS).exists():
                read_memory(psutil.Process(process.pid), flow)
                for worker in psutil.Process(supervisor.pid).children():
                    read_memory(worker, workers[worker.pid])
            time.sleep(PAUSE)
        seconds = time.time() - begun
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}:\n{workdir.complaints()}")
    summary = json.loads(answer.read_text().splitlines()[-1])
    return Submission(begun, seconds, summary, flow, workers)


def read_memory(process: psutil.Process, memory: Memory) -> None:
    """Add a reading, unless the process has ended."""
    with suppress(psutil.Error):
        memory.readings.append(process.memory_info().rss)
        memory.peak = max(memory.readings)


def task_runs(workdir: Workdir) -> int:
    """The number of task runs that Prefect's own server has kept."""
    database = workdir.folder / ".pressrun" / "prefect" / "prefect.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        count: int = connection.execute("SELECT count(*) FROM task_run").fetchone()[0]
    return count


if __name__ == "__main__":
    main()
