"""Opens a run: reads the job file, writes the spec and the job parts, rejects the bad rows."""

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

from pipeline.assemble import model_digests
from pipeline.errors import RunError
from pipeline.intake.identity import file_digest
from pipeline.intake.reader import Overrides, read_jobs
from pipeline.job import BadRow, Job, RunSpec, Verdict, timestamp, version
from pipeline.settings import Settings
from pipeline.storing.books import RunBooks


def asked_for(path: Path, overrides: Overrides, settings: Settings, books: RunBooks) -> RunSpec:
    """The spec of a run with this file, as it stands in the books if that was opened before.

    Otherwise its rows are still to be counted. Raises ModelError.
    """
    profile = settings.chosen_profile
    spec = RunSpec(
        run=books.run,
        job_file=path.name,
        job_file_digest=file_digest(path),
        rows=0,
        parts=0,
        profile=profile.model_dump(mode="json"),
        overrides=overrides.model_dump(mode="json"),
        models=model_digests(settings, profile),
        created_at=timestamp(),
        version=version(),
    )
    standing = books.standing_spec()
    return standing if standing and standing.edition == spec.edition else spec


def open_run(path: Path, overrides: Overrides, settings: Settings, books: RunBooks) -> RunSpec:
    """Write what is to be done into the books; answers the spec.

    A run that exists is opened anew with this file: its outcomes stand, and its rows are now this
    file's. The spec comes last, so that a run never names rows that are not there; a file that was
    opened before is not read again. Raises ModelError and JobFileError before anything is written.
    """
    spec = asked_for(path, overrides, settings, books)
    if spec.rows:
        return spec
    rows, parts, profile = 0, 0, settings.chosen_profile
    for parts, shard in enumerate(_shards(read_jobs(path, profile, overrides), settings.shard), 1):
        books.write_part(spec.edition, parts, shard)
        books.reject_all(row for row in shard if isinstance(row, BadRow))
        rows += len(shard)
    if not rows:
        raise RunError(f"{path} holds no rows.")
    spec = spec.model_copy(update={"rows": rows, "parts": parts})
    books.write_spec(spec)
    books.drop_other_parts(spec.edition)
    return spec


def forget(books: RunBooks, spec: RunSpec, verdicts: Collection[Verdict]) -> int:
    """Remove the records of the run's jobs that ended so, for them to be done again; how many."""
    count = 0
    for part in range(1, spec.parts + 1):
        jobs = {row.id for row in books.part(spec.edition, part) if isinstance(row, Job)}
        for outcome in books.outcomes(sorted(jobs)):
            if outcome.verdict in verdicts:
                books.remove_record(outcome.job_id)
                count += 1
    return count


def run_name(path: Path) -> str:
    """The run's name when none is given: the job file's own, fit for a folder."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-.")[:64] or "run"


def _shards(rows: Iterable[Job | BadRow], size: int) -> Iterator[list[Job | BadRow]]:
    rows = iter(rows)
    while shard := list(islice(rows, size)):
        yield shard
