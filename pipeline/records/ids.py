"""A set of job ids in constant memory."""

import sqlite3
from collections.abc import Iterable


class IdSet:
    """Job ids in an SQLite table in the temporary folder (about 40 MB for a million ids), which is
    dropped with its connection. One thread at a time may use it.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        # an empty name is a private file, which needs no durability
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN"
        )
        rows = ((job_id,) for job_id in ids)
        self._table.executemany("INSERT OR IGNORE INTO ids VALUES (?)", rows)

    def add(self, job_id: str) -> bool:
        """Add an id; True if it is new."""
        found = self._table.execute("INSERT OR IGNORE INTO ids VALUES (?)", (job_id,))
        return found.rowcount == 1

    def __contains__(self, job_id: object) -> bool:
        found = self._table.execute("SELECT 1 FROM ids WHERE id = ?", (job_id,))
        return found.fetchone() is not None

    def __len__(self) -> int:
        count: int = self._table.execute("SELECT count(*) FROM ids").fetchone()[0]
        return count
