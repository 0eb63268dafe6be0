"""Parquet files held in memory."""

import pyarrow as pa
import pyarrow.parquet as pq


def read_table(data: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a file with these columns. Raises OSError or ValueError for any other file.

    Reads on this thread alone and from Arrow's own buffer: Arrow's threads abort the process when
    it ends while they still hold a Python file.
    """
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        return file.read(use_threads=False).cast(schema)
