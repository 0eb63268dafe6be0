"""The pilot of a check: a few jobs are really run, and the cost of all is estimated from them."""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from flows.dispatch.budget import work_of
from flows.runs.costs import Price
from flows.runs.estimate import by_work, share, total
from flows.runs.open import asked_for
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.jobs import open_inputs
from pipeline.errors import Blocked, JobError, PressrunError
from pipeline.job import SEED_SPACE, Job
from pipeline.jobfile.reader import Overrides
from pipeline.ports import Ports
from pipeline.record import Outcome, Status
from pipeline.run import failed, hold_contest, run_job
from pipeline.settings import Settings

RUN = "pilot"
FAR = 1000
"""Distance between the seeds of a job and of its copies, above any number of candidates."""


@dataclass(frozen=True)
class PilotResult:
    """The jobs of a pilot and their outcomes. `loading` is the seconds until models were ready,
    `seconds` the wall time of the jobs, `busy` the device seconds in it, of the copies too.
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
        """The jobs' costs as known in advance."""
        return [work_of(job) for job in self.jobs]

    @property
    def statuses(self) -> Counter[Status]:
        """The number of jobs by status."""
        return Counter(outcome.status for outcome in self.outcomes)


def run_pilot(
    jobs: Sequence[Job], all_jobs: int, path: Path, overrides: Overrides, settings: Settings
) -> PilotResult:
    """Run `jobs`, out of `all_jobs` in the file at `path`, as a worker of this machine would, and
    keep no results. Raises PressrunError.

    Loading models and their first calls are measured apart.
    """
    if overrides.collection and overrides.retrieval:
        from flows.runs.knowledge import require_collection

        require_collection(overrides.collection, settings)
    jobs = sorted(jobs, key=lambda job: job.model)  # as a run has them
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pressrun-pilot-"))
        begun = time.monotonic()
        settings = settings.model_copy(update={"store": folder})
        assembly = stack.enter_context(closing(Assembly(settings)))
        run_folder = assembly.run_folder(RUN)
        inputs = open_inputs(settings, path, run_folder.store)
        for image in chain.from_iterable(job.inputs for job in jobs):
            inputs.read(image.path)
        spec = asked_for(path, overrides, settings, run_folder)
        run_folder.write_spec(spec)
        ports = assembly.ports(spec)
        # the first calls of models take longer, once in each worker
        for job in {job.model: job for job in jobs}.values():
            with suppress(Blocked, JobError):
                context = ports.retriever.retrieve(job)
                hold_contest(job, context, ports.writer.write(job, context), ports)
        ready = time.monotonic()
        outcomes, beside = run_all(jobs, ports, min(settings.concurrency, all_jobs))
        busy = sum(outcome.device_time for outcome in (*outcomes, *beside))
        return PilotResult(jobs, outcomes, ready - begun, time.monotonic() - ready, busy)


def report(result: PilotResult, all_jobs: int, all_work: int, price: Price) -> dict[str, Any]:
    """The costs of a pilot's jobs, and the estimates for `all_jobs` with `all_work`."""
    costs, works = result.costs, result.works
    device = total(costs, works, all_jobs, all_work)
    accepted = share(result.statuses[Status.ACCEPTED], len(costs), all_jobs)
    estimates = {"device_seconds": device, "accepted": accepted}
    if result.busy:
        estimates["wall_seconds"] = device.times(result.seconds / result.busy)
    if price.per_hour:
        estimates[f"cost_in_{price.currency}"] = device.times(price.per_hour / 3600)
    return {
        "pilot_jobs": len(costs),
        **{f"pilot_{status.value}": n for status, n in sorted(result.statuses.items())},
        "pilot_device_seconds": round(sum(costs), 3),
        "pilot_wall_seconds": round(result.seconds, 3),
        "loading_seconds": round(result.loading, 3),
        "in_proportion_to": "work" if by_work(costs, works) else "jobs",
        "estimates": [
            {"of": name} | {part: round(value, 3) for part, value in asdict(found).items()}
            for name, found in estimates.items()
        ],
    }


def _outcome(job: Job, ports: Ports) -> Outcome:
    try:
        return run_job(job, ports)
    except PressrunError:
        raise
    except Exception as error:  # noqa: BLE001 - a run would record it as the job's own fault too
        return failed(job, ports, f"{type(error).__name__}: {error}")


def run_all(
    jobs: Sequence[Job],
    ports: Ports,
    at_once: int,
    run: Callable[[Job, Ports], Outcome] = _outcome,
) -> tuple[list[Outcome], list[Outcome]]:
    """Run the jobs; returns their outcomes, and the outcomes of copies that run beside the last
    jobs to keep the device's batches full until the end, as in a long run.
    """
    beside, over, numbers = list[Outcome](), threading.Event(), count()

    def fill() -> None:
        while not over.is_set():
            number = next(numbers)
            job, seeds_off = jobs[number % len(jobs)], FAR * (number + 1)
            changed = {"id": f"{job.id}_{number}", "seed": (job.seed + seeds_off) % SEED_SPACE}
            beside.append(run(job.model_copy(update=changed), ports))

    with ThreadPoolExecutor(at_once) as pool:
        ended = [pool.submit(run, job, ports) for job in jobs]
        for _ in range(at_once - 1):
            pool.submit(fill)
        try:
            shown = track(ended, "pilot", console=Console(file=sys.stderr))
            outcomes = [future.result() for future in shown]
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
    return outcomes, beside
