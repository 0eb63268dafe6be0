"""Opens a run: reads the job file, writes the spec and the job parts, rejects the bad rows."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from pipeline.assemble import model_digests
from pipeline.errors import RunError
from pipeline.intake.identity import file_digest
from pipeline.intake.reader import Overrides, read_jobs
from pipeline.job import BadRow, Job, RunSpec
from pipeline.settings import Settings
from pipeline.storing.books import RunBooks


def open_run(path: Path, overrides: Overrides, settings: Settings, books: RunBooks) -> RunSpec:
    """Write what is to be done into the books; answers the spec.

    A run that exists is opened anew with this file: its outcomes stand, and its rows are now
    this file's. Raises ModelError and JobFileError before anything is written.
    """
    profile = settings.chosen_profile
    models = model_digests(settings, profile)
    rows = parts = 0
    for parts, shard in enumerate(_shards(read_jobs(path, profile, overrides), settings.shard), 1):
        books.write_part(parts, shard)
        rows += len(shard)
        for row in shard:
            if isinstance(row, BadRow):
                books.reject(row)
    if not rows:
        raise RunError(f"{path} holds no rows.")
    books.drop_parts(after=parts)
    spec = RunSpec(
        run=books.run,
        job_file=path.name,
        job_file_digest=file_digest(path),
        rows=rows,
        parts=parts,
        profile=profile.model_dump(mode="json"),
        models=models,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("pressrun"),
    )
    books.write_spec(spec)
    return spec


def run_name(path: Path) -> str:
    """The run's name when none is given: the job file's own, fit for a folder."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-.")[:64] or "run"


def _shards(rows: Iterable[Job | BadRow], size: int) -> Iterator[list[Job | BadRow]]:
    rows = iter(rows)
    while shard := list(islice(rows, size)):
        yield shard
