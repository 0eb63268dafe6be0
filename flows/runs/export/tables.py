"""Exports as tables: JSONL and Parquet, one line or row for each job."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.runs.export.lines import SCHEMA, Line, flat

ROWS = 5000
"""Rows of a row group."""
LONGEST_LINE = 2**20
RUN = b"pressrun.run"


def write_jsonl(path: Path, lines: Iterable[Line]) -> None:
    """Write one JSON object in each line."""
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False, allow_nan=False), file=file)


def write_parquet(path: Path, run: str, lines: Iterable[Line]) -> None:
    """Write one row for each line; the file's metadata names the run."""
    schema = SCHEMA.with_metadata({RUN: run.encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rest = map(flat, lines)
        while rows := list(islice(rest, ROWS)):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def is_jsonl_of(run: str, path: Path) -> bool:
    """True for a file that is an export of the run by its first line, or is empty."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(LONGEST_LINE)
    try:
        found = json.loads(first or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and (
        not first or (found.get("run") == run and "job_id" in found)
    )


def is_parquet_of(run: str, path: Path) -> bool:
    """True for a file that is an export of the run by its metadata."""
    if not path.is_file():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, ValueError):
        return False
    return bool(metadata.get(RUN) == run.encode())
