"""From a job file to jobs, in constant memory: each row one job or one bad row."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import JobFileError
from pipeline.intake import csv, jsonl, parquet
from pipeline.intake.columns import Notice, Warn
from pipeline.intake.making import Maker, Overrides
from pipeline.intake.rows import RawRow, suffix_of
from pipeline.job import BadRow, Job
from pipeline.settings import Profile

__all__ = ["FORMATS", "Notice", "Overrides", "Warn", "read_jobs", "warn_on_stderr"]

Reader = Callable[[Path, Warn], Iterator[RawRow]]

FORMATS: dict[str, Reader] = {
    ".csv": csv.read,
    ".tsv": csv.read,
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".parquet": parquet.read,
}
_FOREIGN = (b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"%PDF", b"\xff\xfe", b"\xfe\xff")


def warn_on_stderr(notice: Notice) -> None:
    """Log a notice where it disturbs nobody who reads the answer on stdout."""
    import structlog

    log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    log.warning(notice.reason, line=notice.line, column=notice.column)


def read_jobs(
    path: Path, profile: Profile, overrides: Overrides, warn: Warn = warn_on_stderr
) -> Iterator[Job | BadRow]:
    """Every row of a job file in order, as a job or as a bad row with the reason.

    What should be known and stops nothing, such as an unknown column, goes to `warn`. Raises
    JobFileError, at once or with the first row, where the file as a whole is wrong.
    """
    reader = FORMATS.get(suffix_of(path))
    if reader is None:
        raise JobFileError(f"{path} is not one of {' '.join(FORMATS)}.")
    if not path.is_file():
        raise JobFileError(f"There is no file {path}.")
    make = Maker(profile, overrides).make
    return (make(row) for row in _guarded(path, reader, warn))


def _guarded(path: Path, reader: Reader, warn: Warn) -> Iterator[RawRow]:
    try:
        _check_start(path)
        yield from reader(path, warn)
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error


def _check_start(path: Path) -> None:
    """Raises JobFileError for an empty file, and for another kind of file under a text's name."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise JobFileError(f"{path} is empty.")
    if suffix_of(path) != ".parquet" and (start.startswith(_FOREIGN) or b"\0" in start):
        raise JobFileError(f"{path} is not UTF-8 text; save it as {suffix_of(path)} in UTF-8.")
