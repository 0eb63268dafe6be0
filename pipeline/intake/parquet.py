"""Job files in Parquet: columns of text and numbers, read a batch at a time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import JobFileError
from pipeline.intake.columns import Columns, WrongColumn
from pipeline.intake.remarks import Warn
from pipeline.intake.rows import ROW_LIMIT, RawRow, Value
from pipeline.intake.values import FIELD_LIMIT
from pipeline.parquetfiles import TooLarge, parquet_batches

BATCH = 2048
BATCH_BYTES = 32 * 1024 * 1024
"""What a batch may take; a row group of long fields is read in smaller batches."""


def read(path: Path, warn: Warn) -> Iterator[RawRow]:
    """The rows of a Parquet file, counted from 1; nulls and NaN are empty.

    Raises JobFileError for columns that hold neither text nor numbers, and for a file that is
    damaged or unfolds to too much.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        columns = _checked(parquet.read_schema(path), warn)
        names = list(columns)
        # a text that stands in many rows is in memory once, however small the file made it
        with parquet.ParquetFile(path, read_dictionary=names) as file:
            number = 0
            for batch in parquet_batches(path, file, names, BATCH, BATCH_BYTES):
                cells = [_values(batch.column(n), _limit(column)) for n, column in columns.items()]
                for fields in zip(*cells, strict=True):
                    number += 1
                    pairs = zip(columns.values(), fields, strict=True)
                    yield RawRow(number, {name: v for name, v in pairs if not _is_empty(v)})
    except TooLarge as error:
        raise JobFileError(f"{path}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        raise JobFileError(f"{path} is not a readable Parquet file: {error}") from error


def _checked(schema: Any, warn: Warn) -> dict[str, str]:
    """The columns to read: as the file names them, and as we do."""
    try:
        kept = Columns(warn).keep(1, tuple(schema.names))
    except WrongColumn as error:
        raise JobFileError(str(error)) from error
    names = {name: column for name, column in zip(schema.names, kept, strict=True) if column}
    for name in names:
        kind = schema.field(name).type
        if not _is_plain(kind):
            raise JobFileError(f"Column {name!r} is {kind}, not text or a number.")
    return names


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_integer,
        types.is_floating,
        types.is_null,
    )
    return any(test(kind) for test in tests)


def _limit(column: str) -> int:
    """Letters of a cell that are read: one more than may be."""
    return (ROW_LIMIT if column.startswith("meta.") else FIELD_LIMIT) + 1


def _values(column: Any, limit: int) -> list[Value | None]:
    """A column's cells; of equal texts one copy, cut where it is longer than a field may be."""
    from pyarrow import types

    if not types.is_dictionary(column.type):
        return _cells(column, limit)
    used = column.indices.unique().drop_null()
    cells = dict(zip(used.to_pylist(), _cells(column.dictionary.take(used), limit), strict=True))
    return [cells.get(place) for place in column.indices.to_pylist()]


def _cells(column: Any, limit: int) -> list[Value | None]:
    """Plain cells; text that is not UTF-8 gets half characters, refused when it is read."""
    import pyarrow as pa

    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        cells = [cell and cell.decode("utf-8", errors="surrogateescape") for cell in raw]
    return [cell[:limit] if isinstance(cell, str) else cell for cell in cells]


def _is_empty(value: Value | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
