"""The manifest: one line for each row of the job file, derived from the records alone."""

import json
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.job import BadRow, Job, Outcome, RunSpec, Verdict
from pipeline.storing.books import RunBooks
from pipeline.storing.tables import read_table

NAME = "manifest.parquet"

SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("keywords", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("seed", pa.int64()),
        pa.field("prompt", pa.string()),
        pa.field("text", pa.string()),
        pa.field("image", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("sources", pa.list_(pa.string()), nullable=False),
        pa.field("candidates", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("device_seconds", pa.float64(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)


def build_manifest(books: RunBooks, spec: RunSpec) -> bytes:
    """Write the run's manifest anew and answer it; equal books give equal bytes.

    Goes part by part, so that only one shard is held at a time besides the file. Rows whose job
    has no record yet are left out; rows with the same job share its record.
    """
    file = BytesIO()
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for number in range(1, spec.parts + 1):
            if lines := list(_lines(books, books.part(spec.edition, number))):
                writer.write_table(pa.Table.from_pylist(lines, schema=SCHEMA))
    data = file.getvalue()
    books.write(NAME, data, "application/vnd.apache.parquet")
    return data


def read_manifest(books: RunBooks) -> pa.Table:
    """The manifest as a table. Raises RunError before it has been built, and for a damaged one."""
    return books.read(NAME, lambda data: read_table(data, SCHEMA))


def counts(table: pa.Table) -> dict[str, int]:
    """How many rows ended in which way; every way is named."""
    found = Counter(table.column("outcome").to_pylist())
    return {verdict.value: found[verdict.value] for verdict in Verdict}


def _lines(books: RunBooks, rows: list[Job | BadRow]) -> Iterator[dict[str, Any]]:
    ids = dict.fromkeys(row.id for row in rows)
    outcomes = {outcome.job_id: outcome for outcome in books.outcomes(ids)}
    for row in sorted(rows, key=lambda row: row.row):
        if outcome := outcomes.get(row.id):
            yield _line(row, outcome)


def _line(row: Job | BadRow, outcome: Outcome) -> dict[str, Any]:
    job = row if isinstance(row, Job) else None
    brief, image = outcome.brief, outcome.image
    return {
        "job_id": row.id,
        "row": row.row,
        "name": job.name if job else "",
        "keywords": row.keywords,
        "outcome": outcome.verdict.value,
        "score": outcome.score,
        "seed": outcome.seed,
        "prompt": brief.prompt if brief else None,
        "text": brief.text if brief else None,
        "image": image.path if image else None,
        "reason": outcome.reason,
        "sources": [p.source or p.title or p.id for p in outcome.context.passages],
        "candidates": len(outcome.candidates),
        "seconds": sum(outcome.seconds.values()),
        "device_seconds": sum(outcome.device_seconds.values()),
        "meta": json.dumps(job.meta if job else {}, ensure_ascii=False, sort_keys=True),
    }
