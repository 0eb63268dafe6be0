"""Which ids were met before, in constant memory."""

import sqlite3


class SeenIds:
    """The ids met so far, exactly: a table that SQLite keeps in a file of the temporary folder
    (about 40 MB for a million ids) and drops with its connection.
    """

    def __init__(self) -> None:
        # an empty name is a private file; what a crash leaves of it nobody needs
        self._table = sqlite3.connect("", isolation_level=None)
        self._table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN"
        )

    def add(self, job_id: str) -> bool:
        """Whether the id is new."""
        found = self._table.execute("INSERT OR IGNORE INTO seen VALUES (?)", (job_id,))
        return found.rowcount == 1
