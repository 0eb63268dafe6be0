"""From a job file to jobs, in constant memory: each row one job or one bad row."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import JobFileError
from pipeline.intake import csv, jsonl, parquet
from pipeline.intake.making import Maker, Overrides
from pipeline.intake.rows import RawRow, suffix_of
from pipeline.job import BadRow, Job
from pipeline.settings import Profile

__all__ = ["FORMATS", "Overrides", "read_jobs"]

FORMATS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".csv": csv.read,
    ".tsv": csv.read,
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".parquet": parquet.read,
}


def read_jobs(path: Path, profile: Profile, overrides: Overrides) -> Iterator[Job | BadRow]:
    """Every row of a job file in order, as a job or as a bad row with the reason.

    Raises JobFileError, at once or with the first row, where the file as a whole is wrong.
    """
    reader = FORMATS.get(suffix_of(path))
    if reader is None:
        raise JobFileError(f"{path} is not one of {' '.join(FORMATS)}.")
    if not path.is_file():
        raise JobFileError(f"There is no file {path}.")
    make = Maker(profile, overrides).make
    return (make(row) for row in _guarded(path, reader))


def _guarded(path: Path, reader: Callable[[Path], Iterator[RawRow]]) -> Iterator[RawRow]:
    try:
        yield from reader(path)
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
