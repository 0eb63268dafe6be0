"""The manifest: one line for each row of the job file, derived from the records alone."""

import json
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.job import BadRow, Job, Outcome, RunSpec, Status
from pipeline.records.run_folder import RunFolder
from pipeline.records.tables import open_table

NAME = "manifest.parquet"
LINES = 1000

SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("keywords", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("seed", pa.uint64()),
        pa.field("prompt", pa.string()),
        pa.field("text", pa.string()),
        pa.field("image", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("sources", pa.list_(pa.string()), nullable=False),
        pa.field("collection", pa.string(), nullable=False),
        pa.field("candidates", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("device_seconds", pa.float64(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)


def build_manifest(run_folder: RunFolder, spec: RunSpec) -> bytes:
    """Write the run's manifest and return it; equal records give equal bytes.

    Shards are read one at a time, to bound memory. Rows without a record yet are left out; rows
    with the same job share its record.
    """
    file = BytesIO()
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for number in range(1, spec.shards + 1):
            ended = run_folder.records.ended(spec.fingerprint, number)
            if lines := [_line(row, outcome) for row, outcome in ended if outcome]:
                writer.write_table(pa.Table.from_pylist(lines, schema=SCHEMA))
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


def _line(row: Job | BadRow, outcome: Outcome) -> dict[str, Any]:
    job = row if isinstance(row, Job) else None
    brief, image = outcome.brief, outcome.image
    return {
        "job_id": row.id,
        "row": row.row,
        "name": job.name if job else "",
        "keywords": row.keywords,
        "outcome": outcome.status.value,
        "score": outcome.score,
        "seed": outcome.seed,
        "prompt": brief.prompt if brief else None,
        "text": brief.text if brief else None,
        "image": image.path if image else None,
        "reason": outcome.reason,
        "sources": [p.source or p.title or p.id for p in outcome.context.passages],
        "collection": job.collection if job else "",
        "candidates": len(outcome.candidates),
        "seconds": sum(outcome.seconds.values()),
        "device_seconds": outcome.device_time,
        "meta": json.dumps(job.meta if job else {}, ensure_ascii=False, sort_keys=True),
    }
