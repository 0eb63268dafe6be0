"""Reads a job file into jobs in constant memory: each row is one job or one bad row."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from pipeline.errors import JobFileError, NoJobFile
from pipeline.job import BadRow, Job
from pipeline.jobfile import csv, jsonl, parquet, xlsx
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.columns import LEFT_OUT
from pipeline.jobfile.reading import Reading
from pipeline.jobfile.remarks import Notice, Remarks, Warn
from pipeline.jobfile.rows import ROW_LIMIT, SAVE_AS_UTF8, RawRow, suffix_of
from pipeline.jobfile.values import READERS
from pipeline.media.inputs import InputReader
from pipeline.models.accepted import Accepted
from pipeline.models.named.folder import WeightsFolder
from pipeline.options import INPUTS
from pipeline.profile import Profile
from pipeline.tabular.files import BOMS, Unreadable, open_text

__all__ = ["FORMATS", "Notice", "Overrides", "Warn", "read_jobs", "warn_on_stderr"]

Reader = Callable[[Path, Reading, Warn], Iterator[RawRow]]

_TEXTS: dict[str, Reader] = {
    ".csv": csv.read,
    ".tsv": csv.read,
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".json": jsonl.read,
}
FORMATS: dict[str, Reader] = {
    **_TEXTS,
    **{f"{suffix}.gz": reader for suffix, reader in _TEXTS.items()},
    ".parquet": parquet.read,
    ".xlsx": xlsx.read,
    ".xlsm": xlsx.read,
}
_SIGNATURES = {
    b"PK\x03\x04": "a workbook (name it .xlsx) or a ZIP archive (unpack it)",
    b"PAR1": "Parquet: name it .parquet",
    b"\x1f\x8b": "gzip: add .gz to its name",
    b"\xd0\xcf\x11\xe0": "an old workbook: save it as .xlsx",
    b"%PDF": "PDF",
}
_HINTS = {
    ".xls": "save it from Excel or LibreOffice as .xlsx, or as CSV UTF-8.",
    ".xlsb": "save it from Excel as .xlsx, or as CSV UTF-8.",
    ".ods": "save it from LibreOffice as .xlsx, or as CSV UTF-8.",
    ".numbers": "export it from Numbers as .xlsx, or as CSV in UTF-8.",
    ".gsheet": "it is a link alone: download the sheet as .xlsx or CSV (File, Download).",
    ".gz": "name its format too, as in jobs.csv.gz.",
    ".zip": "unpack it first.",
    ".txt": "give its first line the name keywords, and the file the suffix .csv.",
}


AHEAD = 64
"""Rows whose images are read together."""
_NAMES_INPUTS = re.compile(
    "|".join(column.partition("_")[0] for column in INPUTS).encode(), re.IGNORECASE
)


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
    reader, remarks, reading = _reader(path), Remarks(), Reading.beside(path)
    inputs = inputs or InputReader(())
    builder = JobBuilder(profile, overrides, remarks, weights, inputs, accepted)

    def jobs() -> Iterator[Job | BadRow]:
        rows = _read_ahead(_rows(path, reader, reading, warn), inputs)
        yield from map(builder.build, rows)
        remarks.report(warn)

    return jobs()


def input_names(path: Path) -> Iterator[str]:
    """The names of all input images of a job file, in order. Raises JobFileError."""
    reader, reading = _reader(path), Reading.beside(path)
    if not _may_name_inputs(path, reading):
        return
    for row in _rows(path, reader, reading, lambda _: None):
        yield from _inputs_of(row)


def _reader(path: Path) -> Reader:
    if not path.is_file():
        raise NoJobFile(f"Looked for {path.absolute()}.")
    if reader := FORMATS.get(suffix_of(path)):
        return reader
    hint = _HINTS.get(suffix_of(path), "")
    known = " ".join(suffix for suffix in FORMATS if not suffix.endswith(".gz"))
    raise JobFileError(
        f"{path} is not one of {known}, nor a text of them with .gz; {hint}".rstrip("; ")
    )


def _rows(path: Path, reader: Reader, reading: Reading, warn: Warn) -> Iterator[RawRow]:
    with _errors_of(path):
        _check_start(path, reading)
        for row in reader(path, reading, warn):
            row.values.pop(LEFT_OUT, None)
            yield row


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Errors of reading as JobFileError."""
    try:
        yield
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
    except Unreadable as error:
        raise JobFileError(f"{path}: {error}.") from error


def _may_name_inputs(path: Path, reading: Reading) -> bool:
    """False for a file that clearly has none of the columns INPUTS: most job files do not."""
    suffix = suffix_of(path)
    if suffix == ".parquet" or not set(INPUTS).isdisjoint(reading.columns.values()):
        return True
    with _errors_of(path):
        if FORMATS[suffix] is xlsx.read:
            return not set(INPUTS).isdisjoint(xlsx.columns_of(path, reading))
        header_alone, before = suffix.startswith((".csv", ".tsv")), b""
        with open_text(path, reading.encoding) as file:
            while piece := file.read(4 * ROW_LIMIT):
                if _NAMES_INPUTS.search(before + piece):
                    return True
                if header_alone:
                    break
                before = piece[-16:]  # a name may lie across two pieces
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


def _check_start(path: Path, reading: Reading) -> None:
    """Raise JobFileError for an empty file, and for a binary file named as a text."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise JobFileError(f"{path} is empty.")
    suffix = suffix_of(path)
    if suffix.removesuffix(".gz") not in _TEXTS:
        return
    if suffix.endswith(".gz"):
        if not start.startswith(b"\x1f\x8b"):
            raise JobFileError(f"{path} is not gzip; take .gz off its name.")
        with open_text(path, reading.encoding) as file:
            start = file.peek(64)
    kind = next((kind for sign, kind in _SIGNATURES.items() if start.startswith(sign)), "")
    if kind:
        raise JobFileError(f"{path} is not text. It looks like {kind}.")
    if b"\0" in start[:4] and not reading.encoding and not start.startswith(tuple(BOMS)):
        raise JobFileError(
            f"{path} is not UTF-8 text. It looks like UTF-16 without its mark: name its encoding, "
            f"utf-16-le or utf-16-be, or {SAVE_AS_UTF8}"
        )
