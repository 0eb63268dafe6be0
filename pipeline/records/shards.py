"""Shard files: the rows of a run, a few hundred to a Parquet file."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.job import BadRow, Job
from pipeline.records.run_files import RunFiles
from pipeline.records.tables import read_table

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


class ShardFiles:
    """The shard files in a run's folder, counted from 1, below the run's fingerprint."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def write(self, fingerprint: str, number: int, rows: Sequence[Job | BadRow]) -> None:
        """Write a shard's rows, in order. Equal rows give equal files."""
        lines = list[dict[str, Any]]()
        for row in rows:
            line: dict[str, Any] = {"row": row.row, "job_id": row.id, "keywords": row.keywords}
            if isinstance(row, Job):
                line["job"] = row.model_dump_json()
            else:
                line |= {"problem_column": row.column, "problem_reason": row.reason}
            lines.append(line)
        table = pa.Table.from_pylist(lines, schema=SCHEMA)
        file = BytesIO()
        pq.write_table(table, file, compression="zstd")
        name = _name(fingerprint, number)
        self._files.write(name, file.getvalue(), "application/vnd.apache.parquet")

    def read(self, fingerprint: str, number: int) -> list[Job | BadRow]:
        """A shard's rows, in order. Raises RunError when there is no such shard."""
        return self._files.read(
            _name(fingerprint, number),
            lambda data: [_row(line) for line in read_table(data, SCHEMA).to_pylist()],
        )

    def ids(self, fingerprint: str, number: int) -> dict[int, str]:
        """The job ids of a shard's rows, by their lines in the job file.

        Raises RunError when there is no such shard.
        """

        def parse(data: bytes) -> dict[int, str]:
            table = read_table(data, SCHEMA)
            return dict(zip(table["row"].to_pylist(), table["job_id"].to_pylist(), strict=True))

        return self._files.read(_name(fingerprint, number), parse)

    def documents(self, fingerprint: str, number: int) -> dict[str, str]:
        """A shard's jobs by id, as unparsed JSON. Raises KeyError when there is no such shard."""

        def parse(data: bytes) -> dict[str, str]:
            table = read_table(data, SCHEMA)
            lines = zip(table["job_id"].to_pylist(), table["job"].to_pylist(), strict=True)
            return {job_id: document for job_id, document in lines if document is not None}

        return self._files.parse(_name(fingerprint, number), parse)


def _name(fingerprint: str, number: int) -> str:
    return f"{FOLDER}{fingerprint}/shard-{number:05d}.parquet"


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
