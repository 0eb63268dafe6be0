"""Job files in Parquet: columns of text and numbers, read a batch at a time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import JobFileError
from pipeline.intake.rows import RawRow, Value
from pipeline.intake.values import check_columns

BATCH = 2048


def read(path: Path) -> Iterator[RawRow]:
    """The rows of a Parquet file, counted from 1; nulls and NaN are empty.

    Raises JobFileError for columns that are unknown or hold neither text nor numbers, and for a
    file that is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_schema(file.schema_arrow)
            number = 0
            for batch in file.iter_batches(batch_size=BATCH):
                names = batch.schema.names
                columns = [_values(column) for column in batch.columns]
                for fields in zip(*columns, strict=True):
                    number += 1
                    pairs = zip(names, fields, strict=True)
                    yield RawRow(number, {name: v for name, v in pairs if not _is_empty(v)})
    except (pa.ArrowException, OSError) as error:
        raise JobFileError(f"{path} is not a readable Parquet file: {error}") from error


def _check_schema(schema: Any) -> None:
    check_columns(schema.names)
    for field in schema:
        if not _is_plain(field.type):
            raise JobFileError(f"Column {field.name!r} is {field.type}, not text or a number.")


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


def _values(column: Any) -> list[Value | None]:
    """A column's cells; text that is not UTF-8 gets half characters, refused when it is read."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        cells = column.cast(pa.large_binary()).to_pylist()
        return [cell and cell.decode("utf-8", errors="surrogateescape") for cell in cells]


def _is_empty(value: Value | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
