"""Proves a run's books: each row one record, each record its picture, and nothing besides."""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

from pipeline.assemble import open_books
from pipeline.errors import RunError, Unavailable
from pipeline.job import JOB_ID, BadRow, RunSpec
from pipeline.ports import Blob
from pipeline.settings import Settings
from pipeline.storing.books import RunBooks
from workers.queue import Queue

Leased = Callable[[Iterable[str]], set[str]]
"""Which of some jobs a worker has in hand. Raises Unavailable."""

SAFE_AGE = 3600.0
"""Seconds after which a picture without a record can be no execution's that is still on its way."""

ALARMS_SHOWN = 20


def _nobody(_: Iterable[str]) -> set[str]:
    return set()


@dataclass
class Report:
    """What was found. A sound run has 0 `lost` and 0 `unexpected`.

    `lost` rows have no record. `duplicated` pictures were made by a second execution of a job that
    has its record. `recovered` records were missing and are there again. `unexpected` is what
    cannot be mended: a damaged record, a picture that is gone or is another one. `resent` jobs were
    lost on their way to a worker and sent again, as the run itself counted them.
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
        """The four figures that say whether the books are sound."""
        names = ("lost", "duplicated", "recovered", "unexpected")
        return {name: getattr(self, name) for name in names}

    def alarm(self, text: str) -> None:
        """Count something that cannot be mended."""
        self.unexpected += 1
        if len(self.alarms) < ALARMS_SHOWN:
            self.alarms.append(text)


def reconcile_run(
    run: str, settings: Settings, *, read_pictures: bool = True, safe_age: float = SAFE_AGE
) -> dict[str, Any]:
    """Reconcile a run by its name; answers the report. Raises RunError where there is none."""
    books = open_books(settings, run, committing=True)
    report = reconcile(
        books, books.spec(), leases(settings, run), read_pictures=read_pictures, safe_age=safe_age
    )
    return {"run": run, **asdict(report)}


def leases(settings: Settings, run: str) -> Leased:
    """How to ask for a run's leases; nobody knows of any where no Redis is named."""
    if not settings.redis_url:
        return _nobody
    return partial(Queue(settings.redis_url, settings.broker_url).leased, run)


def reconcile(
    books: RunBooks,
    spec: RunSpec,
    leased: Leased = _nobody,
    *,
    read_pictures: bool,
    safe_age: float = SAFE_AGE,
) -> Report:
    """Compare rows, records and pictures; mend what can be mended.

    Without `read_pictures` a record is read only where the names do not tell enough. A picture goes
    as an orphan only after another look at its job's lease and record. Holds the ids of the records
    in memory, and otherwise one job or one shard at a time.
    """
    report = Report()
    recorded = set[str]()
    for job_id, records, pictures in _by_job(books):
        if not JOB_ID.fullmatch(job_id):
            for blob in (*records, *pictures):
                report.alarm(f"{blob.key!r} is no name of a record or a picture")
            continue
        orphans = pictures
        if records:
            recorded.add(job_id)
            named = len(pictures) == 1 and not read_pictures
            orphans = [] if named else _checked(books, job_id, pictures, report, read_pictures)
            report.duplicated += len(orphans)
        for blob in orphans:
            _remove(books, job_id, blob, leased, safe_age, report)
    _check_rows(books, spec, recorded, report)
    books.store.sweep(f"{books.folder}/", safe_age)
    return report


def _by_job(books: RunBooks) -> Iterator[tuple[str, list[Blob], list[Blob]]]:
    """The records and the pictures of each job: two sorted listings, read side by side."""
    records = ((_job_of(blob), 0, blob) for blob in books.listing("records/"))
    pictures = ((_job_of(blob), 1, blob) for blob in books.listing("images/"))
    both = heapq.merge(records, pictures, key=lambda entry: entry[:2])
    for job_id, entries in groupby(both, key=lambda entry: entry[0]):
        found: tuple[list[Blob], list[Blob]] = ([], [])
        for _, kind, blob in entries:
            found[kind].append(blob)
        yield job_id, *found


def _job_of(blob: Blob) -> str:
    return blob.key.rpartition("/")[2].partition(".")[0].partition("-")[0]


def _checked(
    books: RunBooks, job_id: str, pictures: list[Blob], report: Report, read_pictures: bool
) -> list[Blob]:
    """Hold a record against its picture; answers the pictures that are not its own."""
    try:
        outcome = books.outcome(job_id)
    except RunError as error:
        report.alarm(str(error))
        return []
    image = outcome.image if outcome else None
    if image is None:
        return pictures
    key = books.key(image.path)
    if key not in {blob.key for blob in pictures}:
        report.alarm(f"{books.address(image.path)} is missing")
    elif read_pictures and _sha256(books, image.path) != image.sha256:
        report.alarm(f"{books.address(image.path)} is not the picture of its record")
    return [blob for blob in pictures if blob.key != key]


def _sha256(books: RunBooks, path: str) -> str:
    return hashlib.sha256(books.blob(path)).hexdigest()


def _remove(
    books: RunBooks, job_id: str, blob: Blob, leased: Leased, safe_age: float, report: Report
) -> None:
    """Remove an orphan, unless its job may still come to name it."""
    if blob.age < safe_age or _in_hand(leased, job_id):
        report.orphans_young += 1
        return
    # after the lease, which a worker gives back when its record stands
    outcome = books.outcome(job_id)
    if outcome and outcome.image and books.key(outcome.image.path) == blob.key:
        return
    books.store.delete(blob.key)
    report.orphans_removed += 1


def _in_hand(leased: Leased, job_id: str) -> bool:
    try:
        return bool(leased([job_id]))
    except Unavailable:
        return True


def _check_rows(books: RunBooks, spec: RunSpec, recorded: set[str], report: Report) -> None:
    """Count the rows without a record; those of bad rows are written again."""
    report.rows = spec.rows
    for part in range(1, spec.parts + 1):
        for row in books.part(spec.edition, part):
            if row.id in recorded:
                continue
            if isinstance(row, BadRow):
                books.reject(row)
                report.recovered += 1
            else:
                report.lost += 1
