"""Job files in Parquet: columns of text, numbers, yes and no, and lists of texts, read a batch at a
time.
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import Columns, WrongColumn
from pipeline.jobfile.remarks import Warn
from pipeline.jobfile.rows import ROW_LIMIT, RawRow, Value, takes_lists, takes_truth
from pipeline.jobfile.values import FIELD_LIMIT
from pipeline.tabular.parquet import TooLarge, below, parquet_batches

BATCH = 2048
BATCH_BYTES = 32 * 1024 * 1024
"""What a batch may take; a row group of long fields is read in smaller batches."""


def read(path: Path, warn: Warn) -> Iterator[RawRow]:
    """The rows of a Parquet file, counted from 1; nulls and NaN are empty.

    Raises JobFileError for columns whose kind is not theirs, and for a file that is damaged or
    unfolds to too much.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns, stored = _checked(file.schema_arrow, warn), file.schema
        names = list(columns)
        paths = [stored.column(place).path for place in range(len(stored))]
        # a text that stands in many rows is in memory once, however small the file made it
        read_dictionary = [each for each in paths if below(each, set(names))]
        with parquet.ParquetFile(path, read_dictionary=read_dictionary) as file:
            number = 0
            for batch in parquet_batches(path, file, names, BATCH, BATCH_BYTES):
                cells = [_values(_column(batch, n), _limit(own)) for n, own in columns.items()]
                for fields in zip(*cells, strict=True):
                    number += 1
                    pairs = zip(columns.values(), fields, strict=True)
                    yield RawRow(number, {name: v for name, v in pairs if not _is_empty(v)})
    except TooLarge as error:
        raise JobFileError(f"{path}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        raise JobFileError(f"{path} is not a readable Parquet file: {error}") from error


def _checked(schema: Any, warn: Warn) -> dict[str, str]:
    """The columns to read: as the file names them, and as we do. `meta` is taken apart."""
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
        kept = Columns(warn).keep(1, tuple(name for name, _ in kinds))
    except WrongColumn as error:
        raise JobFileError(str(error)) from error
    names = dict[str, str]()
    for (name, kind), column in zip(kinds, kept, strict=True):
        if column and not _is_kind_of(column, kind):
            raise JobFileError(f"Column {name!r} is {kind}, not text or a number.")
        if column:
            names[name] = column
    return names


def _is_kind_of(column: str, kind: Any) -> bool:
    from pyarrow import types

    if types.is_boolean(kind):
        return takes_truth(column)
    if _is_list(kind):
        return takes_lists(column) and _is_plain(kind.value_type, numbers=False)
    return _is_plain(kind)


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
    """A batch's column, or the part of its `meta`."""
    from pyarrow import compute

    if name in batch.schema.names:
        return batch.column(name)
    return compute.struct_field(batch.column("meta"), [name.removeprefix("meta.")])


def _limit(column: str) -> int:
    """Letters of a cell that are read: one more than may be."""
    return (ROW_LIMIT if column.startswith("meta.") else FIELD_LIMIT) + 1


def _values(column: Any, limit: int) -> list[Value | None]:
    """A column's cells; of equal texts one copy, cut where it is longer than a field may be."""
    from pyarrow import compute, types

    if _is_list(column.type):
        texts = iter(_values(compute.list_flatten(column), limit))
        lengths = compute.list_value_length(column).to_pylist()
        return [_joined(list(islice(texts, length or 0)), limit) for length in lengths]
    if not types.is_dictionary(column.type):
        return _cells(column, limit)
    used = column.indices.unique().drop_null()
    cells = dict(zip(used.to_pylist(), _cells(column.dictionary.take(used), limit), strict=True))
    return [cells.get(place) for place in column.indices.to_pylist()]


def _joined(texts: list[Value | None], limit: int) -> str:
    """A list as a cell of a CSV has it."""
    return "|".join(str(text) for text in texts[: limit + 1] if text is not None)[:limit]


def _cells(column: Any, limit: int) -> list[Value | None]:
    """Plain cells; text that is not UTF-8 gets half characters, refused when it is read."""
    import pyarrow as pa

    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        cells = [cell and cell.decode("utf-8", errors="surrogateescape") for cell in raw]
    return [_cell(cell, limit) for cell in cells]


def _cell(cell: Any, limit: int) -> Value | None:
    if isinstance(cell, bool):
        return str(cell).lower()
    return cell[:limit] if isinstance(cell, str) else cell


def _is_empty(value: Value | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
