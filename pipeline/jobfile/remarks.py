"""Notices about a job file that stop nothing."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice about a job file, with the line and column of its first occurrence."""

    line: int
    column: str
    reason: str


Warn = Callable[[Notice], None]


class Remarks:
    """Counts remarks on rows by reason, so that a million rows make no more notices than ten.

    Reasons are a fixed set of sentences.
    """

    def __init__(self) -> None:
        self._first = dict[str, tuple[int, str]]()
        self._rows = dict[str, int]()

    def add(self, line: int, column: str, reason: str) -> None:
        """Count one row for a reason."""
        self._first.setdefault(reason, (line, column))
        self._rows[reason] = self._rows.get(reason, 0) + 1

    def report(self, warn: Warn) -> None:
        """Send one notice for each reason, with its first line and the number of rows."""
        for reason, (line, column) in self._first.items():
            count = self._rows[reason]
            warn(Notice(line, column, f"{reason} ({count} {'row' if count == 1 else 'rows'})"))
