"""The seconds and memory of opening and publishing a run of so many rows, without the work between.

This program writes the records itself: accepted rows with an image of one colour. So the timed
part is the flow's own: `opening` reads the job file into shards, `lines` reads the records of each
shard once, as the flow does when the shard ends, and `publishing` reconciles and writes manifest,
gallery and summary. `growth` is the median of the last tenth of a stage's readings of resident
memory over that of the first tenth, less one.

With TMPDIR=/dev/shm the store is in memory: a million rows take some 9 GB there.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil

from benchmarks.common import arguments, show
from benchmarks.jobfile_speed import Memory
from flows.runs.lines import RunLines
from flows.runs.open import open_run
from flows.runs.publish import publish
from flows.runs.reconcile import reconcile
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job, Score
from pipeline.jobfile.reader import Overrides
from pipeline.record import CandidateRecord, Outcome, Status
from pipeline.settings import Settings, load_settings
from tests.harness.jobs import write_jobs

RUN = "publishing"
PAUSE = 0.1


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        figures = measure(given.rows, Path(folder))
    show("Opening and publishing", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Open and publish so many rows; answers seconds, rows per second and memory by stage."""
    jobs = folder / "jobs.csv"
    write_jobs(jobs, rows)
    settings = load_settings(store=str(folder / "out"))
    run_folder = open_run_folder(settings, RUN)
    figures: dict[str, Any] = {"rows": rows}
    spec = timed(
        "opening", rows, figures, lambda: open_run(jobs, Overrides(), settings, run_folder)
    )
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(
            pool.map(partial(write_records, settings, spec.fingerprint), range(1, spec.shards + 1))
        )
    lines = RunLines(run_folder, spec)

    def write_lines() -> None:
        for shard in range(1, spec.shards + 1):
            lines.write(shard)

    timed("lines", rows, figures, write_lines)

    def published() -> dict[str, Any]:
        report = reconcile(run_folder, spec, read_images=False)
        return publish(run_folder, spec, 1.0, report)

    summary = timed("publishing", rows, figures, published)
    assert (summary["accepted"], summary["lost"]) == (rows, 0), summary
    return figures


def timed(stage: str, rows: int, figures: dict[str, Any], work: Callable[[], Any]) -> Any:
    """Do a stage's work, and add its figures."""
    memory, over, process = Memory(), Event(), psutil.Process()

    def read() -> None:
        while not over.wait(PAUSE):
            memory.readings.append(process.memory_info().rss)

    reader = Thread(target=read)
    reader.start()
    begun = time.monotonic()
    try:
        return work()
    finally:
        seconds = time.monotonic() - begun
        over.set()
        reader.join()
        figures |= {
            f"{stage}_seconds": seconds,
            f"{stage}_rows_per_s": rows / seconds,
            f"{stage}_memory_growth": memory.growth() - 1,
            f"{stage}_peak_mb": max(memory.readings) / 2**20,
        }


def write_records(settings: Settings, fingerprint: str, shard: int) -> None:
    """Write a record and an image for each job of a shard."""
    run_folder, image = open_run_folder(settings, RUN), np.full((16, 16, 3), 0.5, np.float32)
    for row in run_folder.shards.read(fingerprint, shard):
        assert isinstance(row, Job)
        candidate = CandidateRecord(index=0, seed=row.seed, score=Score(raw=0.3, calibrated=0.9))
        outcome = Outcome(
            run=RUN, job_id=row.id, status=Status.ACCEPTED, job=row, row=row.row,
            keywords=row.keywords, candidates=(candidate,), winner=0,
        )  # fmt: skip
        run_folder.records.commit(outcome, image)


if __name__ == "__main__":
    main()
