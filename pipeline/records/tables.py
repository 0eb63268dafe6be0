"""Parquet files held in memory."""

import pyarrow as pa
import pyarrow.parquet as pq


def read_table(data: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a file with these columns. Raises OSError or ValueError for any other file."""
    with open_table(data, schema) as file:
        return file.read(use_threads=False)


def open_table(data: bytes, schema: pa.Schema) -> pq.ParquetFile:
    """A file with these columns, for reading without Arrow's threads and from its own buffer: the
    threads abort a process that exits while they hold a Python file.

    Raises OSError or ValueError for any other file.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if not file.schema_arrow.equals(schema):
        raise ValueError(f"other columns: {', '.join(file.schema_arrow.names)}")
    return file
