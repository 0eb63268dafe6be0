"""Reads a job file into jobs in constant memory: each row is one job or one bad row."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.errors import JobFileError, NoJobFile
from pipeline.job import BadRow, Job
from pipeline.jobfile import csv, jsonl, parquet
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.remarks import Notice, Remarks, Warn
from pipeline.jobfile.rows import RawRow, suffix_of
from pipeline.models.loras import LoraFolder
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
    loras: Mapping[str, LoraFolder] | None = None,
) -> Iterator[Job | BadRow]:
    """Every row of a job file in order, as a job or as a bad row with the reason. `loras` are the
    folders of the LoRAs that rows may name, by the names of the profile's renderers.

    Notices, such as of an unknown column, go to `warn`; notices of settings without effect come
    after the last row, each once. Raises JobFileError, at once or with the first row, if the file
    as a whole is wrong, and ConfigError for overrides that name no renderer of the profile.
    """
    if not path.is_file():
        raise NoJobFile(f"Looked for {path.absolute()}.")
    reader = FORMATS.get(suffix_of(path))
    if reader is None:
        hint = _HINTS.get(suffix_of(path), "")
        raise JobFileError(f"{path} is not one of {' '.join(FORMATS)}; {hint}".rstrip("; "))
    remarks = Remarks()
    return _jobs(path, reader, JobBuilder(profile, overrides, remarks, loras), remarks, warn)


def _jobs(
    path: Path, reader: Reader, builder: JobBuilder, remarks: Remarks, warn: Warn
) -> Iterator[Job | BadRow]:
    try:
        _check_start(path)
        yield from map(builder.build, reader(path, warn))
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
    remarks.report(warn)


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
