"""What is told of a job file and stops nothing."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell about a job file that stops nothing: where it was met, and what it is."""

    line: int
    column: str
    reason: str


Warn = Callable[[Notice], None]


class Remarks:
    """Counts what was met in rows, and tells each kind once: a million rows make no more notices.

    Reasons are a fixed set of sentences.
    """

    def __init__(self) -> None:
        self._first = dict[str, tuple[int, str]]()
        self._rows = dict[str, int]()

    def event(self, line: int, column: str, reason: str) -> None:
        """Count one row of a kind."""
        self._first.setdefault(reason, (line, column))
        self._rows[reason] = self._rows.get(reason, 0) + 1

    def tell(self, warn: Warn) -> None:
        """One notice of each kind, with its first line and the number of rows."""
        for reason, (line, column) in self._first.items():
            count = self._rows[reason]
            warn(Notice(line, column, f"{reason} ({count} {'row' if count == 1 else 'rows'})"))
