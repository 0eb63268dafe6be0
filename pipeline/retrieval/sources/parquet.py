"""Parquet as a source: columns of text, and lists for the tags, read in batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.tables import ROW_LIMIT, known_columns, reason, texts
from pipeline.retrieval.sources.texts import TAGS, BadText, Text, Unreadable
from pipeline.tabular.parquet import TooLarge, parquet_batches

BATCH = 1024
BATCH_BYTES = 16_000_000
"""Bytes of a batch; a row group of long texts is read in smaller batches."""


def read(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each row, from row 1. Raises Unreadable for a file that cannot be read."""
    for number, row in enumerate(_rows(source.path), 1):
        try:
            yield from texts({name: _value(cell) for name, cell in row.items()}, source)
        except ValueError as error:
            yield source.bad(reason(error), number)
        except IndexError:  # pyarrow looks up a dictionary entry only here
            yield source.bad("the file is damaged here", number)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Each row's cells as pyarrow scalars. Raises Unreadable."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema, stored = file.schema_arrow, file.schema
        names = known_columns(schema.names)
        for name in names:
            kind = schema.field(name).type
            wanted = "a list of texts" if name == "tags" else "text"
            if not (_is_list(kind) if name == "tags" else _is_text(kind)):
                raise Unreadable(f"column {name} is {kind}, not {wanted}")
        paths = [stored.column(place).path for place in range(len(stored))]
        paths = [each for each in paths if each.partition(".")[0] in names]
        # as a dictionary, a text of many rows is in memory once, however small the file made it
        with parquet.ParquetFile(path, read_dictionary=paths) as file:
            for batch in parquet_batches(path, file, names, BATCH, BATCH_BYTES):
                for place in range(batch.num_rows):
                    yield {name: batch.column(name)[place] for name in names}
    except TooLarge as error:
        raise Unreadable(str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"not a readable Parquet file: {error}") from error


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return types.is_null(kind) or (any(test(kind) for test in tests) and _is_text(kind.value_type))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(test(kind) for test in tests)


def _value(cell: Any) -> Any:
    """A cell as a text, a list of texts or None. Raises ValueError."""
    from pyarrow import types

    if not cell.is_valid:
        return None
    if types.is_dictionary(cell.type):
        return _value(cell.value)
    if _is_list(cell.type):
        return [_value(part) for part in cell.values[: TAGS + 1]]
    if cell.as_buffer().size > ROW_LIMIT:
        raise Unreadable(f"a text is longer than {ROW_LIMIT // 1024} KB")
    return cell.as_py()
