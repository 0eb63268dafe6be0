"""The lines of a run, a file for each shard: manifest and gallery are made of them."""

from collections.abc import Iterator, Sequence
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from flows.runs.gallery.items import card_of
from pipeline.errors import RunError
from pipeline.record import RunSpec, Status
from pipeline.records import manifest
from pipeline.records.columns import Column, Columns, schema_of, table_of
from pipeline.records.ids import IdSet
from pipeline.records.run_folder import RunFolder
from pipeline.records.tables import open_table

FOLDER = "lines/"
COLUMNS: Columns = {**manifest.COLUMNS, "card": Column(pa.string(), card_of, as_json=True)}
SCHEMA = schema_of(COLUMNS)

log = structlog.get_logger(__name__)


class RunLines:
    """The lines of one fingerprint of a run.

    A shard's file is written when each of its rows has a record, and removed before one of these
    records is. So records are read once, while the run works, and not again for each status or
    publication.
    """

    def __init__(self, run_folder: RunFolder, spec: RunSpec) -> None:
        self._run_folder, self._spec = run_folder, spec

    def write(self, shard: int, *, anew: bool = True) -> None:
        """Write a shard's lines, unless some rows have no record yet, or one that is damaged.

        Without `anew` lines that are stored are kept.
        """
        if not anew and self.has(shard):
            return
        try:
            ended = list(self._run_folder.records.ended(self._spec.fingerprint, shard))
        except RunError as error:  # publishing the run reports it
            log.warning("a shard has no lines", shard=shard, reason=str(error))
            return
        outcomes = [outcome for outcome in ended if outcome]
        if len(outcomes) == len(ended):
            file = BytesIO()
            pq.write_table(table_of(COLUMNS, outcomes), file, compression="zstd")
            name = self._name(shard)
            self._run_folder.write(name, file.getvalue(), "application/vnd.apache.parquet")

    def has(self, shard: int) -> bool:
        """True where a shard's lines are stored."""
        return self._run_folder.has(self._name(shard))

    def drop(self, shard: int) -> None:
        """Remove a shard's lines."""
        self._run_folder.store.delete(self._run_folder.key(self._name(shard)))

    def tables(self, *columns: str) -> Iterator[pa.Table]:
        """The lines of each shard in order, with these columns. Rows without a record are left out.

        Lines that are not stored, or damaged, are made of the records.
        """
        recorded: IdSet | None = None
        for shard in range(1, self._spec.shards + 1):
            table = self._stored(shard, columns)
            if table is None:
                if recorded is None:  # one listing is cheaper than a look for each row
                    recorded = IdSet(self._run_folder.records.ids())
                ended = self._run_folder.records.ended(self._spec.fingerprint, shard, recorded)
                table = table_of(COLUMNS, [outcome for outcome in ended if outcome])
            yield table.select(columns)

    def count(self, status: Status) -> int:
        """The number of jobs that ended so; equal rows are one."""
        seen = IdSet()
        return sum(
            seen.add(job_id)
            for table in self.tables("job_id", "outcome")
            for job_id, ended in zip(
                table["job_id"].to_pylist(), table["outcome"].to_pylist(), strict=True
            )
            if ended == status
        )

    def _stored(self, shard: int, columns: Sequence[str]) -> pa.Table | None:
        def parse(data: bytes) -> pa.Table:
            return open_table(data, SCHEMA).read(columns, use_threads=False)

        try:
            return self._run_folder.parse(self._name(shard), parse)
        except KeyError:
            return None
        except RunError as error:
            log.warning("lines are made again", reason=str(error))
            return None

    def _name(self, shard: int) -> str:
        return f"{FOLDER}{self._spec.fingerprint}/shard-{shard:05d}.parquet"
