"""Jobs that a calibration measures: read, briefed and guarded as in a run, several at a time."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from math import fsum
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from rich.console import Console
from rich.progress import track

from flows.runs.open import asked_for
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.jobs import open_jobs
from pipeline.assemble.stores import open_run_folder, open_store
from pipeline.errors import Blocked, JobError, RunError
from pipeline.job import Brief, Context, Job, RenderRequest
from pipeline.jobfile.reader import Overrides
from pipeline.ports import Ports
from pipeline.run import Execution, render_request
from pipeline.settings import Settings

AT_ONCE = 8

Item = TypeVar("Item")
Held = TypeVar("Held")


class LeftOut(TypedDict):
    """A row that has no contest, and why."""

    row: int
    reason: str


def first_jobs(path: Path, overrides: Overrides, count: int, settings: Settings) -> list[Job]:
    """The file's first jobs. Raises RunError where it has none."""
    rows = open_jobs(path, overrides, settings, store=open_store(settings))
    jobs = list(islice((row for row in rows if isinstance(row, Job)), count))
    if not jobs:
        raise RunError(f"{path} holds no jobs.")
    return jobs


@contextmanager
def opened_ports(path: Path, overrides: Overrides, settings: Settings) -> Iterator[Ports]:
    """The ports of a calibration's jobs, with the models that the settings name."""
    spec = asked_for(path, overrides, settings, open_run_folder(settings, "calibration"))
    with closing(Assembly(settings)) as assembly:
        yield assembly.ports(spec)


def of_each(items: Sequence[Item], hold: Callable[[Item], Held]) -> list[Held]:
    """The results of `hold` for each item, several at a time, with a bar on standard error."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        held = pool.map(hold, items)
        return list(track(held, "calibrate", len(items), console=Console(file=sys.stderr)))


def measured(
    jobs: Sequence[Job], hold: Callable[[Job], Held]
) -> tuple[list[tuple[Job, Held]], list[LeftOut]]:
    """The jobs with the results of `hold`, and the rows left out, whose job is blocked or fails for
    a reason of its own. Raises RunError where that is so for all.
    """

    def attempt(job: Job) -> tuple[Job, Held] | LeftOut:
        try:
            return job, hold(job)
        except (Blocked, JobError) as error:
            return LeftOut(row=job.row, reason=error.detail or str(error))

    found = of_each(jobs, attempt)
    held = [each for each in found if isinstance(each, tuple)]
    left_out = [each for each in found if not isinstance(each, tuple)]
    if not held:
        raise RunError(f"No row can be measured; the first, {reason(left_out[0])}")
    return held, left_out


def told(left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """The part of a report that is about the rows left out."""
    reasons = {"reasons": list(left_out)} if left_out else {}
    return {"left_out": len(left_out), **reasons}


def reason(left_out: LeftOut) -> str:
    """The reason of one row, with its number."""
    return f"row {left_out['row']}: {left_out['reason']}"


def judged_seconds(device: Mapping[str, float]) -> float:
    """The device seconds of judging, without the guards', which see no preview."""
    return fsum(spent for role, spent in device.items() if role not in ("renderer", "guard"))


def briefed(job: Job, ports: Ports) -> tuple[Context, Brief]:
    """A job's context and brief, guarded as in a run."""
    execution = Execution(job, ports)
    execution.retrieve()
    brief = execution.write()
    return execution.context, brief


def all_of(job: Job, context: Context, brief: Brief, ports: Ports) -> RenderRequest:
    """The request for all candidates of a job."""
    seeds = tuple(job.candidate_seed(index) for index in range(job.candidates))
    return render_request(job, context, brief, ports.inputs, seeds)
