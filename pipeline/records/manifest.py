"""The manifest: one line for each row of the job file, derived from the records alone."""

from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.record import Status
from pipeline.records.columns import COLUMNS as ALL
from pipeline.records.columns import Column, Columns, schema_of
from pipeline.records.run_folder import RunFolder
from pipeline.records.tables import open_table

NAME = "manifest.parquet"
LINES = 1000

COLUMNS: Columns = {
    "job_id": ALL["job_id"],
    "row": ALL["row"],
    "name": ALL["name"],
    "keywords": ALL["keywords"],
    "outcome": ALL["status"],
    "score": ALL["score"],
    "seed": ALL["seed"],
    "prompt": ALL["prompt"],
    "text": ALL["text"],
    "image": ALL["image"],
    "perceptual_hash": ALL["perceptual_hash"],
    "reason": ALL["reason"],
    "sources": ALL["passage_sources"],
    # never null, unlike an export's: costs are added up by it
    "collection": Column(pa.string(), lambda o: o.job.collection if o.job else ""),
    "candidates": ALL["candidate_count"],
    "seconds": ALL["seconds"],
    "device_seconds": ALL["device_seconds"],
    "meta": ALL["meta"],
}
SCHEMA = schema_of(COLUMNS)


def build_manifest(run_folder: RunFolder, tables: Iterable[pa.Table]) -> bytes:
    """Write the run's manifest from the lines of its shards and return it; equal records give equal
    bytes.
    """
    file = BytesIO()
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for table in tables:
            if table.num_rows:
                writer.write_table(table)
    data = file.getvalue()
    run_folder.write(NAME, data, "application/vnd.apache.parquet")
    return data


class Manifest:
    """A manifest in memory, with its lines decoded a few at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = open_table(data, SCHEMA)

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    def lines(self, *columns: str) -> Iterator[dict[str, Any]]:
        """The lines in order, with these columns."""
        for batch in self._file.iter_batches(LINES, columns=columns, use_threads=False):
            yield from batch.to_pylist()


def read_manifest(run_folder: RunFolder) -> Manifest:
    """The run's manifest. Raises RunError before it has been built, and for a damaged one."""
    return run_folder.read(NAME, Manifest)


def counts(manifest: Manifest) -> dict[str, int]:
    """The number of rows by status, with every status present."""
    found = Counter(line["outcome"] for line in manifest.lines("outcome"))
    return {status.value: found[status.value] for status in Status}
