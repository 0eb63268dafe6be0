"""Parquet in memory is read without threads, which could abort the process when it ends."""

import subprocess
import sys

import pyarrow as pa
import pytest

from pipeline.storing import parts
from pipeline.storing.tables import read_table

THREADS = """
import psutil
from pipeline.job import BadRow
from pipeline.storing import parts

threads = psutil.Process().num_threads

rows = [BadRow(id=str(n), row=n, column="seed", reason="no", keywords="a") for n in range(9)]
data = parts.pack(rows)
before = threads()
assert parts.unpack(data) == rows
print(threads() - before)
"""


def test_reading_starts_no_thread() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


def test_a_file_with_other_columns_is_refused() -> None:
    data = parts.pack([])
    with pytest.raises(ValueError, match="other columns: row"):
        read_table(data, pa.schema([("other", pa.int64())]))
