"""Job parts: the rows of one shard as a Parquet file."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.job import BadRow, Job
from pipeline.storing.tables import read_table

FOLDER = "jobs/"

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("job_id", pa.string(), nullable=False),
        pa.field("keywords", pa.string(), nullable=False),
        pa.field("job", pa.string()),
        pa.field("problem_column", pa.string()),
        pa.field("problem_reason", pa.string()),
    ]
)


def name(edition: str, number: int) -> str:
    """The file of an edition's part, counted from 1, relative to the run's folder."""
    return f"{FOLDER}{edition}/part-{number:05d}.parquet"


def pack(rows: Sequence[Job | BadRow]) -> bytes:
    """The rows as a file, equal for equal rows."""
    table = pa.Table.from_pylist([_line(row) for row in rows], schema=SCHEMA)
    file = BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def unpack(data: bytes) -> list[Job | BadRow]:
    """The rows of a file."""
    return [_row(line) for line in read_table(data, SCHEMA).to_pylist()]


def ids(data: bytes) -> list[str]:
    """The job ids of a file's rows, in their order."""
    found: list[str] = read_table(data, SCHEMA)["job_id"].to_pylist()
    return found


def documents(data: bytes) -> dict[str, str]:
    """The jobs of a file by their ids, each as the JSON document that it was packed as."""
    table = read_table(data, SCHEMA)
    lines = zip(table["job_id"].to_pylist(), table["job"].to_pylist(), strict=True)
    return {job_id: document for job_id, document in lines if document is not None}


def _line(row: Job | BadRow) -> dict[str, Any]:
    line: dict[str, Any] = {"row": row.row, "job_id": row.id, "keywords": row.keywords}
    if isinstance(row, Job):
        return line | {"job": row.model_dump_json()}
    return line | {"problem_column": row.column, "problem_reason": row.reason}


def _row(line: Mapping[str, Any]) -> Job | BadRow:
    if line["job"] is not None:
        job = Job.model_validate_json(line["job"])
        if job.id != line["job_id"]:
            raise ValueError(f"a row is of job {line['job_id']} and of job {job.id}")
        return job
    return BadRow(
        id=line["job_id"],
        row=line["row"],
        column=line["problem_column"],
        reason=line["problem_reason"],
        keywords=line["keywords"],
    )
