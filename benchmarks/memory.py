"""The growth of a worker's memory over thousands of jobs with the example's models.

Jobs of ever new texts, in two sizes, go through the command line to one supervised worker. `growth`
is the median of the worker's resident memory while the last quarter of the jobs ended, over that
of the second quarter, less one.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks.common import arguments, show
from examples.shapes import world
from tests.harness import connected
from tests.harness.connected import Process, Workdir

RUN = "memory"
SEED = 90_001
PAUSE = 0.5


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        figures = measure(given.jobs, Path(folder))
    show("Memory of a worker", figures)
    if given.json:
        print(json.dumps(figures))


def measure(jobs: int, folder: Path) -> dict[str, Any]:
    """Run so many jobs; answers megabytes by quarter, and the growth."""
    workdir = Workdir(folder, {})
    write_jobs(folder / "jobs.csv", jobs)
    words = ["-m", "flows.cli", "worker", "--devices", "cpu"]
    with (
        connected.redis(workdir),
        connected.running(workdir.start(sys.executable, *words)) as supervisor,
    ):
        connected.await_workers(workdir, 1, supervisor)
        readings = run(workdir, supervisor)
    quarters = [median(part) / 2**20 for part in by_quarter(readings, jobs)]
    return {
        "jobs": jobs,
        **{f"quarter_{number}_mb": size for number, size in enumerate(quarters, 1)},
        "growth": quarters[3] / quarters[1] - 1,
    }


def write_jobs(path: Path, jobs: int) -> None:
    """Short jobs: what could leak does so once a job, however many steps it has."""
    rng = np.random.default_rng(SEED)
    with path.open("w", encoding="utf-8") as file:
        print("keywords,candidates,steps,width,height,passages", file=file)
        for number in range(jobs):
            prompt = world.prompt(world.sample_scene(rng, two=0.5))
            print(f'"{prompt}, number {number}",2,4,{(64, 48)[number % 2]},64,0', file=file)


def run(workdir: Workdir, supervisor: Process) -> Sequence[tuple[int, int]]:
    """Run the jobs; answers how many had ended, and the worker's bytes then, again and again."""
    words = ["-m", "flows.cli", "run", "jobs.csv", "--run", RUN, "--json"]
    records, readings = workdir.folder / "out" / "runs" / RUN / "records", list[tuple[int, int]]()
    with connected.running(workdir.start(sys.executable, *words)) as flow:
        while flow.poll() is None:
            if records.exists():
                (worker,) = psutil.Process(supervisor.pid).children()
                readings.append((len(list(records.iterdir())), worker.memory_info().rss))
            time.sleep(PAUSE)
    if flow.returncode:
        raise RuntimeError(f"the run ended with {flow.returncode}:\n{workdir.complaints()}")
    return readings


def by_quarter(readings: Sequence[tuple[int, int]], jobs: int) -> list[list[int]]:
    """The bytes while each quarter of the jobs ended."""
    parts: list[list[int]] = [[] for _ in range(4)]
    for ended, size in readings:
        parts[min(3, 4 * ended // jobs)].append(size)
    return parts


if __name__ == "__main__":
    main()
