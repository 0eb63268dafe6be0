"""Job files in Parquet: columns of texts, numbers, booleans and lists of texts, read in batches."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import LEFT_OUT, Columns, WrongColumn
from pipeline.jobfile.reading import Reading
from pipeline.jobfile.remarks import Notice, Warn
from pipeline.jobfile.rows import ROW_LIMIT, RawRow, Value
from pipeline.jobfile.values import FIELD_LIMIT, readable, shown, takes_lists, takes_truth
from pipeline.tabular.parquet import TooLarge, below, parquet_batches

BATCH = 2048
BATCH_BYTES = 32 * 1024 * 1024
"""Bytes of a batch; a row group of long fields is read in smaller batches."""


def read(path: Path, reading: Reading, warn: Warn) -> Iterator[RawRow]:
    """The rows of a Parquet file, numbered from 1; nulls and NaN are empty.

    Raises JobFileError for columns of a wrong type, and for a file that is damaged or unpacks to
    too much.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns, stored = _checked(file.schema_arrow, reading, warn), file.schema
        names = list(columns)
        paths = [stored.column(place).path for place in range(len(stored))]
        # as a dictionary, a text of many rows is in memory once, however small the file made it
        read_dictionary = [each for each in paths if below(each, set(names))]
        with parquet.ParquetFile(path, read_dictionary=read_dictionary) as file:
            number = 0
            for batch in parquet_batches(path, file, names, BATCH, BATCH_BYTES):
                cells = list[list[Value | None]]()
                for name, column in columns.items():
                    # one character more than a field may have, so that a longer one is refused
                    limit = (ROW_LIMIT if column.startswith("meta.") else FIELD_LIMIT) + 1
                    cells.append(_values(_column(batch, name), limit))
                for fields in zip(*cells, strict=True):
                    number += 1
                    pairs = zip(columns.values(), fields, strict=True)
                    # NaN is not equal to itself
                    yield RawRow(number, {n: v for n, v in pairs if v is not None and v == v})
    except TooLarge as error:
        raise JobFileError(f"{path}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        raise JobFileError(f"{path} is not a readable Parquet file: {error}") from error


def _checked(schema: Any, reading: Reading, warn: Warn) -> dict[str, str]:
    """The columns to read: the file's name to ours. The struct `meta` is flattened."""
    from pyarrow import types

    kinds = [
        (name, kind)
        for field in schema
        for name, kind in (
            [(f"meta.{part.name}", part.type) for part in field.type]
            if field.name == "meta" and types.is_struct(field.type)
            else [(field.name, field.type)]
        )
    ]
    try:
        kept = Columns(warn, reading.columns).keep(1, tuple(name for name, _ in kinds))
    except WrongColumn as error:
        raise JobFileError(str(error)) from error
    for name, times in Counter(schema.names).items():
        if times > 1:
            raise JobFileError(f"There are {times} columns {shown(name)}; rename all but one.")
    names = dict[str, str]()
    for (name, kind), column in zip(kinds, kept, strict=True):
        if column == LEFT_OUT:
            continue
        if _is_kind_of(column, kind):
            names[name] = column
        elif name == column or not column.startswith("meta."):
            raise JobFileError(f"Column {name!r} is {kind}, not text or a number.")
        else:
            reason = f"column {shown(name)} is left out: {kind} is neither text nor a number"
            warn(Notice(1, readable(name, 80), reason))
    return names


def _is_kind_of(column: str, kind: Any) -> bool:
    from pyarrow import types

    if types.is_boolean(kind):
        return takes_truth(column)
    if _is_list(kind):
        return takes_lists(column) and _is_plain(kind.value_type, numbers=False)
    return _is_plain(kind) or (column.startswith("meta.") and _is_written(kind))


def _is_written(kind: Any) -> bool:
    """True for a type that a text can hold whole, such as dates."""
    from pyarrow import types

    tests = (types.is_date, types.is_timestamp, types.is_time, types.is_decimal)
    return any(test(kind) for test in tests)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _is_plain(kind: Any, *, numbers: bool = True) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type, numbers=numbers)
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    tests = (*texts, types.is_integer, types.is_floating) if numbers else texts
    return any(test(kind) for test in tests)


def _column(batch: Any, name: str) -> Any:
    """A batch's column, or the field of its struct `meta`."""
    from pyarrow import compute

    if name in batch.schema.names:
        return batch.column(name)
    return compute.struct_field(batch.column("meta"), [name.removeprefix("meta.")])


def _values(column: Any, limit: int) -> list[Value | None]:
    """A column's cells, equal texts sharing one copy, cut at `limit`; a list is joined by `|`."""
    import pyarrow as pa
    from pyarrow import compute, types

    if _is_written(column.type):
        column = column.cast(pa.string())
    if _is_list(column.type):
        texts = iter(_values(compute.list_flatten(column), limit))
        lengths = compute.list_value_length(column).to_pylist()
        rows = (list(islice(texts, length or 0)) for length in lengths)
        # no more than `limit` texts of a list can count
        joined = ("|".join(str(t) for t in row[: limit + 1] if t is not None) for row in rows)
        return [text[:limit] for text in joined]
    if not types.is_dictionary(column.type):
        return _cells(column, limit)
    used = column.indices.unique().drop_null()
    cells = dict(zip(used.to_pylist(), _cells(column.dictionary.take(used), limit), strict=True))
    return [cells.get(place) for place in column.indices.to_pylist()]


def _cells(column: Any, limit: int) -> list[Value | None]:
    """Plain cells; text that is not UTF-8 gets lone surrogates, which are refused later."""
    import pyarrow as pa

    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        cells = [cell and cell.decode("utf-8", errors="surrogateescape") for cell in raw]
    plain = (str(cell).lower() if isinstance(cell, bool) else cell for cell in cells)
    return [cell[:limit] if isinstance(cell, str) else cell for cell in plain]
