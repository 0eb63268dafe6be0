"""An exact set of ids in constant memory."""

import sqlite3


class SeenIds:
    """The ids added so far, in an SQLite table in the temporary folder (about 40 MB for a million
    ids), which is dropped with its connection.
    """

    def __init__(self) -> None:
        # an empty name is a private file, which needs no durability
        self._table = sqlite3.connect("", isolation_level=None)
        self._table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN"
        )

    def add(self, job_id: str) -> bool:
        """Add an id; True if it is new."""
        found = self._table.execute("INSERT OR IGNORE INTO seen VALUES (?)", (job_id,))
        return found.rowcount == 1
