"""Reads a job file into jobs in constant memory: each row is one job or one bad row."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pipeline.errors import JobFileError, NoJobFile
from pipeline.job import BadRow, Job
from pipeline.jobfile import csv, jsonl, parquet
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.remarks import Notice, Remarks, Warn
from pipeline.jobfile.rows import ROW_LIMIT, RawRow, suffix_of
from pipeline.jobfile.values import READERS
from pipeline.media.inputs import InputReader
from pipeline.models.accepted import Accepted
from pipeline.models.named.folder import WeightsFolder
from pipeline.options import INPUTS
from pipeline.profile import Profile
from pipeline.tabular.rows import BOM

__all__ = ["FORMATS", "Notice", "Overrides", "Warn", "read_jobs", "warn_on_stderr"]

Reader = Callable[[Path, Warn], Iterator[RawRow]]

FORMATS: dict[str, Reader] = {
    ".csv": csv.read,
    ".tsv": csv.read,
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".parquet": parquet.read,
}
_SIGNATURES = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive",
    b"PAR1": "Parquet: name it .parquet",
    b"\x1f\x8b": "gzip: unpack it",
    b"%PDF": "PDF",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_HINTS = {
    ".xlsx": "save the sheet as CSV UTF-8.",
    ".xls": "save the sheet as CSV UTF-8.",
    ".ods": "save the sheet as CSV UTF-8.",
    ".gz": "unpack it first.",
    ".zip": "unpack it first.",
    ".txt": "give its first line the name keywords, and the file the suffix .csv.",
    ".json": "make it JSONL, an object in each line: jq -c '.[]' FILE.json > FILE.jsonl",
}


AHEAD = 64
"""Rows whose images are read together."""
_NAMES_INPUTS = re.compile(
    "|".join(column.partition("_")[0] for column in INPUTS).encode(), re.IGNORECASE
)
_PRETTY = re.compile(rb"\{[ \t\r]*\n")


def warn_on_stderr(notice: Notice) -> None:
    """Log a notice to stderr, apart from results on stdout."""
    import structlog

    log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    log.warning(notice.reason, line=notice.line, column=notice.column)


def read_jobs(
    path: Path,
    profile: Profile,
    overrides: Overrides,
    warn: Warn = warn_on_stderr,
    weights: Mapping[str, Mapping[str, WeightsFolder]] | None = None,
    inputs: InputReader | None = None,
    accepted: Mapping[str, Accepted] | None = None,
) -> Iterator[Job | BadRow]:
    """Every row of a job file in order, as a job or as a bad row with the reason. `weights` are
    the folders of what rows may name, by the names of the profile's renderers and by column,
    `inputs` the reader of their images, `accepted` the settings that each renderer accepts.

    Notices, such as of an unknown column, go to `warn`; notices of settings without effect come
    after the last row, each once. Raises JobFileError, at once or with the first row, if the file
    as a whole is wrong, and ConfigError for overrides that name no renderer of the profile.
    """
    reader, remarks = _reader(path), Remarks()
    inputs = inputs or InputReader(())
    builder = JobBuilder(profile, overrides, remarks, weights, inputs, accepted)

    def jobs() -> Iterator[Job | BadRow]:
        rows = _read_ahead(_rows(path, reader, warn), inputs)
        yield from map(builder.build, rows)
        remarks.report(warn)

    return jobs()


def input_names(path: Path) -> Iterator[str]:
    """The names of all input images of a job file, in order. Raises JobFileError."""
    reader = _reader(path)
    if not _may_name_inputs(path):
        return
    for row in _rows(path, reader, lambda _: None):
        yield from _inputs_of(row)


def _reader(path: Path) -> Reader:
    if not path.is_file():
        raise NoJobFile(f"Looked for {path.absolute()}.")
    if reader := FORMATS.get(suffix_of(path)):
        return reader
    hint = _HINTS.get(suffix_of(path), "")
    raise JobFileError(f"{path} is not one of {' '.join(FORMATS)}; {hint}".rstrip("; "))


def _rows(path: Path, reader: Reader, warn: Warn) -> Iterator[RawRow]:
    try:
        _check_start(path)
        yield from reader(path, warn)
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error


def _may_name_inputs(path: Path) -> bool:
    """False for a text file that clearly has none of the columns INPUTS: most job files do not."""
    if suffix_of(path) == ".parquet":
        return True
    header_alone, before = suffix_of(path) in (".csv", ".tsv"), b""
    try:
        with path.open("rb") as file:
            while piece := file.read(4 * ROW_LIMIT):
                if _NAMES_INPUTS.search(before + piece):
                    return True
                if header_alone:
                    break
                before = piece[-16:]  # a name may lie across two pieces
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
    return False


def _inputs_of(row: RawRow) -> list[str]:
    """The names of a row's input images, as far as they can be read."""
    found = list[str]()
    for column in INPUTS:
        if given := row.values.get(column):
            with suppress(ValueError):
                read = READERS[column](given)
                found += read if isinstance(read, tuple) else [str(read)]
    return found


def _read_ahead(rows: Iterator[RawRow], inputs: InputReader) -> Iterator[RawRow]:
    """The rows, whose images are read many at a time."""
    error = None
    while not error:
        some = list[RawRow]()
        try:
            some.extend(islice(rows, AHEAD))
        except JobFileError as found:  # behind the rows before it
            error = found
        inputs.read_ahead([name for row in some for name in _inputs_of(row)])
        yield from some
        if not some:
            break
    if error:
        raise error


def _check_start(path: Path) -> None:
    """Raise JobFileError for an empty file, and for a binary file named as a text."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise JobFileError(f"{path} is empty.")
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return
    kind = next((kind for sign, kind in _SIGNATURES.items() if start.startswith(sign)), "")
    if kind or b"\0" in start[:4]:
        looks = f" It looks like {kind}." if kind else ""
        raise JobFileError(f"{path} is not UTF-8 text; save it as {suffix} in UTF-8.{looks}")
    begin = start.removeprefix(BOM).lstrip()
    if suffix in (".jsonl", ".ndjson") and (begin[:1] == b"[" or _PRETTY.match(begin)):
        raise JobFileError(
            f"{path} is JSON over many lines or in one array; a job file has an object in each "
            f"line: jq -c 'if type == \"array\" then .[] else . end' {path.name} > lines.jsonl"
        )
