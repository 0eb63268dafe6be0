"""Really runs a few jobs of a file, and estimates from them what all of them will cost."""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from flows.dispatch.budget import work_of
from flows.runs.costs import Price
from flows.runs.estimate import Range, by_work, share, total
from flows.runs.knowledge import require_collection
from flows.runs.open import asked_for
from pipeline.assemble import Assembly
from pipeline.errors import JobError, PressrunError
from pipeline.job import SEED_SPACE, Job, Outcome, Status
from pipeline.jobfile.reader import Overrides
from pipeline.ports import Ports
from pipeline.run import failed, hold_contest, run_job
from pipeline.settings import Settings

RUN = "pilot"
FAR = 1000
"""Between the seeds of a job and of its copies: more than it has candidates."""


@dataclass(frozen=True)
class SentJob:
    """Jobs that were run, and how they ended. Getting ready took `loading` seconds, running them
    `seconds`, in which models worked for `busy`, for jobs beside them too.
    """

    jobs: Sequence[Job]
    outcomes: Sequence[Outcome]
    loading: float
    seconds: float
    busy: float

    @property
    def costs(self) -> list[float]:
        """The jobs' device seconds."""
        return [outcome.device_time for outcome in self.outcomes]

    @property
    def works(self) -> list[int]:
        """What was known of each job's cost before."""
        return [work_of(job) for job in self.jobs]

    @property
    def statuses(self) -> Counter[Status]:
        """How the jobs ended."""
        return Counter(outcome.status for outcome in self.outcomes)


def fly(
    jobs: Sequence[Job], all_jobs: int, path: Path, overrides: Overrides, settings: Settings
) -> SentJob:
    """Run `jobs` of the `all_jobs` in the file at `path` on this machine, as one of its workers
    would, and keep nothing. Raises PressrunError.

    Loading models, and the first calls of each, are measured apart.
    """
    if overrides.collection and overrides.retrieval:
        require_collection(overrides.collection, settings)
    with tempfile.TemporaryDirectory(prefix="pressrun-pilot-") as folder:
        begun = time.monotonic()
        ports = _ports(path, overrides, settings.model_copy(update={"store": folder}))
        _warm_up(jobs[0], ports)
        ready = time.monotonic()
        outcomes, beside = _run(jobs, ports, min(settings.concurrency, all_jobs))
        busy = sum(outcome.device_time for outcome in (*outcomes, *beside))
        return SentJob(jobs, outcomes, ready - begun, time.monotonic() - ready, busy)


def report(flight: SentJob, all_jobs: int, all_work: int, price: Price) -> dict[str, Any]:
    """What the jobs of a pilot have cost, and what `all_jobs` with `all_work` will."""
    costs, works = flight.costs, flight.works
    return {
        "pilot_jobs": len(costs),
        **{f"pilot_{status.value}": n for status, n in sorted(flight.statuses.items())},
        "pilot_device_seconds": round(sum(costs), 3),
        "pilot_wall_seconds": round(flight.seconds, 3),
        "loading_seconds": round(flight.loading, 3),
        "in_proportion_to": "work" if by_work(costs, works) else "jobs",
        "estimates": [
            {"of": name} | {part: round(value, 3) for part, value in asdict(found).items()}
            for name, found in _ranges(flight, all_jobs, all_work, price).items()
        ],
    }


def _ranges(flight: SentJob, all_jobs: int, all_work: int, price: Price) -> dict[str, Range]:
    device = total(flight.costs, flight.works, all_jobs, all_work)
    accepted = share(flight.statuses[Status.ACCEPTED], len(flight.jobs), all_jobs)
    ranges = {"device_seconds": device, "accepted": accepted}
    if flight.busy:
        ranges["wall_seconds"] = device.times(flight.seconds / flight.busy)
    if price.per_hour:
        ranges[f"cost_in_{price.currency}"] = device.times(price.per_hour / 3600)
    return ranges


def _ports(path: Path, overrides: Overrides, settings: Settings) -> Ports:
    assembly = Assembly(settings)
    run_folder = assembly.run_folder(RUN)
    spec = asked_for(path, overrides, settings, run_folder)
    run_folder.write_spec(spec)
    return assembly.ports(spec)


def _warm_up(job: Job, ports: Ports) -> None:
    """The first calls of models take longer, once in each worker."""
    with suppress(JobError):
        context = ports.retriever.retrieve(job)
        hold_contest(job, context, ports.writer.write(job, context), ports)


def _run(jobs: Sequence[Job], ports: Ports, at_once: int) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes of the jobs, and of those that ran beside the last ones: copies of them, with
    which the device's batches are filled until the end, as they are in a long run.
    """
    beside, over, numbers = list[Outcome](), threading.Event(), count()

    def fill() -> None:
        while not over.is_set():
            beside.append(_outcome(_copy(jobs, next(numbers)), ports))

    with ThreadPoolExecutor(at_once) as pool:
        ended = [pool.submit(_outcome, job, ports) for job in jobs]
        for _ in range(at_once - 1):
            pool.submit(fill)
        try:
            shown = track(ended, "pilot", console=Console(file=sys.stderr))
            outcomes = [future.result() for future in shown]
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
    return outcomes, beside


def _copy(jobs: Sequence[Job], number: int) -> Job:
    """One of the jobs under another id, with other seeds."""
    job, seeds_off = jobs[number % len(jobs)], FAR * (number + 1)
    changed = {"id": f"{job.id}_{number}", "seed": (job.seed + seeds_off) % SEED_SPACE}
    return job.model_copy(update=changed)


def _outcome(job: Job, ports: Ports) -> Outcome:
    try:
        return run_job(job, ports)
    except PressrunError:
        raise
    except Exception as error:  # noqa: BLE001 - a run would record it as the job's own fault too
        return failed(job, ports, f"{type(error).__name__}: {error}")
