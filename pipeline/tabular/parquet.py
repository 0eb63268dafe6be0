"""Parquet files in bounded memory: page headers are checked before pages are unpacked."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

PAGE_LIMIT = 128 * 1024 * 1024
"""Bytes of an unpacked page; writers aim at 1 MB, but only check after 1024 texts."""
LIST_LIMIT = 64
"""Mean length of lists in a row group."""
_HEADER_LIMIT = 64 * 1024
_DELTA_BYTE_ARRAY = 7


class TooLarge(Exception):
    """A file would take more memory than its reader allows."""


class _Damaged(Exception):
    """The header of a page cannot be read."""


def parquet_batches(path: Path, file: Any, names: list[str], rows: int, size: int) -> Iterator[Any]:
    """Batches of the named columns of a pyarrow ParquetFile: at most `rows` rows, and fewer if
    they could take more than `size` bytes.

    Raises TooLarge before an oversized page or list is unpacked, and ArrowInvalid if there are
    fewer rows than the metadata says.
    """
    import pyarrow as pa

    wanted = set(names)
    with path.open("rb") as content:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            columns = map(group.column, range(group.num_columns))
            bytes_a_row = 0.0
            for place, column in enumerate(columns):
                if not below(column.path_in_schema, wanted):
                    continue
                repeats = file.schema.column(place).max_repetition_level
                # a small group may have a few longer lists
                if repeats and column.num_values > 1000 + LIST_LIMIT * group.num_rows:
                    raise TooLarge(f"column {column.path_in_schema} holds lists that are too long")
                largest = max(_bytes_a_value(content, column), default=0.0)
                bytes_a_row += column.num_values / max(1, group.num_rows) * largest
            many = int(max(1, min(rows, size / max(1, bytes_a_row))))
            missing = group.num_rows
            for batch in file.iter_batches(batch_size=many, row_groups=[number], columns=names):
                missing -= batch.num_rows
                yield batch
            if missing:
                raise pa.ArrowInvalid(f"{missing} of its {group.num_rows} rows cannot be read")


def below(path: str, names: Collection[str]) -> bool:
    """True if a stored column's path is one of the names or below one; names may contain dots."""
    parts = path.split(".")
    return any(".".join(parts[:count]) in names for count in range(1, len(parts) + 1))


def _bytes_a_value(content: BinaryIO, column: Any) -> Iterator[float]:
    """The most bytes of a value, for each page with values. Raises TooLarge."""
    at = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
        at = column.dictionary_page_offset
    end = at + column.total_compressed_size
    while at < end:
        content.seek(at)
        try:
            page, length = _struct(content.read(_HEADER_LIMIT), 0)
            unpacked, packed = int(page[2]), int(page[3])
            about = page.get(5) or page.get(8) or {}
            values, encoding = int(about.get(1, 0)), about.get(2 if 5 in page else 4)
        except (_Damaged, IndexError, KeyError, TypeError, AttributeError, RecursionError):
            return  # pyarrow reports the damage
        if unpacked > PAGE_LIMIT:
            limit = PAGE_LIMIT // (1024 * 1024)
            raise TooLarge(
                f"column {column.path_in_schema} holds a text, or a page of texts, "
                f"of more than {limit} MB"
            )
        if about:
            # delta encoding: each text may share all of the text before it
            yield unpacked if encoding == _DELTA_BYTE_ARRAY else unpacked / max(1, values)
        if packed < 0:
            return
        at += length + packed


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol by field number, and the offset of its end."""
    found, number = dict[int, Any](), 0
    value: Any
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        match head & 15:
            case 1 | 2 as kind:
                value = kind == 1
            case 3:
                value, at = data[at], at + 1
            case 4 | 5 | 6:
                value, at = _integer(data, at)
            case 7:
                value, at = None, at + 8
            case 8:
                length, at = _unsigned(data, at)
                value, at = None, at + length
            case 12:
                value, at = _struct(data, at)
            case _:  # a page's header holds no lists and no maps
                raise _Damaged
        found[number] = value
    return found, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return value >> 1 ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise _Damaged
