"""Reconciling a run: each row has one record, each record its image, and nothing is left over."""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from flows.runs.lines import RunLines
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import RunError, Unavailable
from pipeline.job import JOB_ID, BadRow
from pipeline.ports import Blob
from pipeline.record import RunSpec
from pipeline.records.ids import IdSet
from pipeline.records.records import READERS, in_order
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings
from workers.queue.messages import Queue

Leased = Callable[[Iterable[str]], set[str]]
"""The subset of some job ids that workers hold. Raises Unavailable."""

SAFE_AGE = 3600.0
"""Seconds after which an image without a record belongs to no running execution."""

ALARMS_SHOWN = 20


def _nobody(_: Iterable[str]) -> set[str]:
    return set()


@dataclass
class Report:
    """The result of reconciling. A sound run has 0 `lost` and 0 `unexpected`.

    `lost` rows have no record. `duplicated` images were made by a second execution of a job that
    has its record. `recovered` records were missing and were written again. `unexpected` faults
    cannot be mended: a damaged record, a missing or different image. `resent` jobs were lost on
    their way to a worker and sent again, as counted by the run itself.
    """

    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    recovered: int = 0
    unexpected: int = 0
    resent: int = 0
    orphans_removed: int = 0
    orphans_young: int = 0
    alarms: list[str] = field(default_factory=list)

    @property
    def counters(self) -> dict[str, int]:
        """The four figures that show whether the run is sound."""
        names = ("lost", "duplicated", "recovered", "unexpected")
        return {name: getattr(self, name) for name in names}

    def alarm(self, text: str) -> None:
        """Count and list a fault that cannot be mended."""
        self.unexpected += 1
        if len(self.alarms) < ALARMS_SHOWN:
            self.alarms.append(text)


def reconcile_run(
    run: str, settings: Settings, *, read_images: bool = True, safe_age: float = SAFE_AGE
) -> dict[str, Any]:
    """Reconcile a run by its name; returns the report. Raises RunError if there is none."""
    run_folder = open_run_folder(settings, run, committing=True)
    report = reconcile(
        run_folder,
        run_folder.spec(),
        leases(settings, run),
        read_images=read_images,
        safe_age=safe_age,
    )
    return {"run": run, **asdict(report)}


def leases(settings: Settings, run: str) -> Leased:
    """The query for a run's leases; without a Redis there are none."""
    if not settings.redis_url:
        return _nobody
    return partial(Queue(settings.redis_url, settings.broker_url).leased, run)


def reconcile(
    run_folder: RunFolder,
    spec: RunSpec,
    leased: Leased = _nobody,
    *,
    read_images: bool,
    safe_age: float = SAFE_AGE,
) -> Report:
    """Compare rows, records and images; mend what can be mended.

    Without `read_images` a record is read only if the file names are not enough. An orphaned image
    is removed only after a second look at its job's lease and record. Memory holds a few
    jobs or one shard at a time.
    """
    report = Report()
    recorded = IdSet()
    look = partial(_checked, run_folder, read_images=read_images)
    with ThreadPoolExecutor(READERS) as pool:
        # threads pay only if every record is read
        jobs = _by_job(run_folder)
        checked = in_order(pool, look, jobs, READERS) if read_images else map(look, jobs)
        for found in checked:
            for alarm in found.alarms:
                report.alarm(alarm)
            if found.recorded:
                recorded.add(found.job_id)
                report.duplicated += len(found.orphans)
            for blob in found.orphans:
                _remove(run_folder, found.job_id, blob, leased, safe_age, report)
    report.rows, lines = spec.rows, RunLines(run_folder, spec)
    for shard in range(1, spec.shards + 1):
        ids = run_folder.shards.ids(spec.fingerprint, shard)
        missing = {job_id for job_id in ids.values() if job_id not in recorded}
        if not missing:
            continue
        lines.drop(shard)
        for row in run_folder.shards.read(spec.fingerprint, shard):
            if row.id not in missing:
                continue
            if isinstance(row, BadRow):
                run_folder.records.reject(row)
                report.recovered += 1
            else:
                report.lost += 1
    run_folder.store.sweep(f"{run_folder.folder}/", safe_age)
    return report


class _Job(NamedTuple):
    """The records and images whose names carry a job's id."""

    id: str
    records: list[Blob]
    images: list[Blob]


class _Found(NamedTuple):
    """A job's images without a record, and its faults."""

    job_id: str
    recorded: bool
    orphans: Sequence[Blob] = ()
    alarms: Sequence[str] = ()


def _by_job(run_folder: RunFolder) -> Iterator[_Job]:
    """The records and the images of each job: two sorted listings, read side by side."""
    records = ((_job_of(blob), 0, blob) for blob in run_folder.listing("records/"))
    images = ((_job_of(blob), 1, blob) for blob in run_folder.listing("images/"))
    both = heapq.merge(records, images, key=lambda entry: entry[:2])
    for job_id, entries in groupby(both, key=lambda entry: entry[0]):
        found: tuple[list[Blob], list[Blob]] = ([], [])
        for _, kind, blob in entries:
            found[kind].append(blob)
        yield _Job(job_id, *found)


def _job_of(blob: Blob) -> str:
    return blob.key.rpartition("/")[2].partition(".")[0].partition("-")[0]


def _checked(run_folder: RunFolder, job: _Job, *, read_images: bool) -> _Found:
    """Compare a job's record with its images."""
    if not JOB_ID.fullmatch(job.id):
        blobs = (*job.records, *job.images)
        alarms = [f"{blob.key!r} is no name of a record or an image" for blob in blobs]
        return _Found(job.id, False, alarms=alarms)
    if not job.records:
        return _Found(job.id, False, job.images)
    if len(job.images) == 1 and not read_images:
        return _Found(job.id, True)
    try:
        outcome = run_folder.records.outcome(job.id)
    except RunError as error:
        return _Found(job.id, True, alarms=[str(error)])
    image = outcome.image if outcome else None
    if image is None:
        return _Found(job.id, True, job.images)
    key, alarms = run_folder.key(image.path), list[str]()
    if key not in {blob.key for blob in job.images}:
        alarms.append(f"{run_folder.address(image.path)} is missing")
    elif read_images and hashlib.sha256(run_folder.blob(image.path)).hexdigest() != image.sha256:
        alarms.append(f"{run_folder.address(image.path)} is not the image of its record")
    return _Found(job.id, True, [blob for blob in job.images if blob.key != key], alarms)


def _remove(
    run_folder: RunFolder, job_id: str, blob: Blob, leased: Leased, safe_age: float, report: Report
) -> None:
    """Remove an orphan, unless a record may still come to name it."""
    try:
        young = blob.age < safe_age or bool(leased([job_id]))
    except Unavailable:
        young = True
    if young:
        report.orphans_young += 1
        return
    # read after the lease: a worker releases its lease only once the record is written
    outcome = run_folder.records.outcome(job_id)
    if outcome and outcome.image and run_folder.key(outcome.image.path) == blob.key:
        return
    run_folder.store.delete(blob.key)
    report.orphans_removed += 1
