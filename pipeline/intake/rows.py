"""What a reader of one format hands on: rows of plain values, or what is wrong with a row."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

Value = str | int | float

ROW_LIMIT = 64 * 1024
"""Bytes that one row of a job file may take."""

ROW_LINES = 256
"""Lines that one row may span; they are read again where a quote turns out to be left open."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file: its values by column; an empty text is no value.

    `problem` says why the row cannot be read; `column` where, as far as that is known.
    """

    line: int
    values: dict[str, Value] = field(default_factory=dict)
    column: str = ""
    problem: str = ""


class RowTooLong(Exception):
    """A row takes more than ROW_LIMIT bytes, or spans more than ROW_LINES lines."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the row is longer than {limit}")


class Lines:
    """The lines of a file, each with its number, in bounded memory.

    A row may span several lines. `rewind` goes back to the row's second line, so that a row which
    never ends (a quote left open) costs only its first line.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead: list[bytes] = []
        self._row: list[bytes] = []
        self._taken = 0
        self._number = 0
        self.first = 1

    def begin_row(self) -> None:
        """The next line begins a row, whose number `first` then is."""
        self._row.clear()
        self._taken = 0
        self.first = self._number + 1

    def rewind(self) -> None:
        """Read everything after the row's first line again."""
        again = self._row[1:]
        self._ahead += reversed(again)
        self._number -= len(again)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """The next line. Raises RowTooLong where the row takes too much."""
        line = self._ahead.pop() if self._ahead else self._read()
        if not line:
            raise StopIteration
        self._number += 1
        self._row.append(line)
        self._taken += len(line)
        if self._taken > ROW_LIMIT:
            raise RowTooLong(f"{ROW_LIMIT // 1024} KB")
        if len(self._row) > ROW_LINES:
            raise RowTooLong(f"{ROW_LINES} lines")
        return line

    def first_line(self) -> bytes:
        """The row's first line, as far as it was read."""
        return self._row[0] if self._row else b""

    def _read(self) -> bytes:
        """The file's next line, cut where it is longer than a row may be."""
        line = self._file.readline(ROW_LIMIT + 1)
        if len(line) <= ROW_LIMIT or line.endswith(b"\n"):
            return line
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = self._file.readline(ROW_LIMIT)
        return line


def suffix_of(path: Path) -> str:
    """The file's suffix in lower case, with its dot."""
    return path.suffix.lower()
