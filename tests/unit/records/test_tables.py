"""Parquet in memory is read without threads, which could abort the process when it ends."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records.tables import read_table

THREADS = """
import sys
from pathlib import Path

import psutil
from pipeline.job import BadRow
from pipeline.storage.folder import FolderStore
from pipeline.records.run_folder import RunFolder

threads = psutil.Process().num_threads

rows = [BadRow(id=str(n), row=n, column="seed", reason="no", keywords="a") for n in range(9)]
shards = RunFolder(FolderStore(Path(sys.argv[1])), "demo").shards
shards.write("f", 1, rows)
before = threads()
assert shards.read("f", 1) == rows
print(threads() - before)
"""


def test_reading_starts_no_thread(tmp_path: Path) -> None:
    command = [sys.executable, "-c", THREADS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


def test_a_file_with_other_columns_is_refused() -> None:
    file = BytesIO()
    pq.write_table(pa.table({"row": [1]}), file)
    with pytest.raises(ValueError, match="other columns: row"):
        read_table(file.getvalue(), pa.schema([("other", pa.int64())]))
