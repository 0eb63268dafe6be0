"""Lines and CSV rows of files in bounded memory, for job files and knowledge sources."""

import csv
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self

BOM = b"\xef\xbb\xbf"
_HINT = re.compile(r'"?sep=([,;:|\t])"?\s*', re.IGNORECASE)
"""The line in which spreadsheets declare the delimiter."""


class RowTooLong(Exception):
    """A row has too many bytes or lines; the message says the limit."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the row is longer than {limit}")


class Lines:
    """The numbered lines of a file, in rows of at most `limit` bytes and `most` lines.

    `rewind` goes back to the row's second line, so that a row that never ends (a quote left open)
    loses only its first line.
    """

    def __init__(self, file: BinaryIO, limit: int, most: int = 1) -> None:
        self._file, self._limit, self._most = file, limit, most
        self._ahead: list[bytes] = []
        self._row: list[bytes] = []
        self._taken = 0
        self._number = 0
        self.first = 1

    def begin_row(self) -> None:
        """Start a row at the next line; `first` becomes its number."""
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
        """The next line, cut behind the limit of a row. Raises RowTooLong."""
        if self._ahead:
            line = self._ahead.pop()
        else:
            line = rest = self._file.readline(self._limit + 1)
            while len(line) > self._limit and rest and not rest.endswith(b"\n"):
                rest = self._file.readline(self._limit)  # skipped
        if not line:
            raise StopIteration
        self._number += 1
        self._row.append(line)
        self._taken += len(line)
        if self._taken > self._limit:
            raise RowTooLong(f"{self._limit // 1024} KB")
        if len(self._row) > self._most:
            raise RowTooLong(f"{self._most} lines")
        return line

    def first_line(self) -> bytes:
        """The row's first line, as far as it was read."""
        return self._row[0] if self._row else b""


def csv_header(
    lines: Lines, delimiters: str, is_column: Callable[[str], bool]
) -> tuple[str, list[str]]:
    """The delimiter with which the header has most known columns, and the columns.

    A line `sep=;` before it sets the delimiter. Blank lines before it are skipped, and lines that
    begin with # and have no known column. Raises UnicodeDecodeError, csv.Error and RowTooLong.
    """
    while True:
        lines.begin_row()
        line = next(lines, b"")
        text = line.removeprefix(BOM).decode("utf-8")
        if hint := _HINT.fullmatch(text):
            delimiters = hint[1]
            continue
        found, wrong = list[tuple[str, list[str]]](), csv.Error("no delimiter")
        for delimiter in delimiters:
            try:
                names = csv_fields(text, delimiter)
            except csv.Error as error:  # a quoted header fits its own delimiter alone
                wrong = error
            else:
                found.append((delimiter, [name.strip() for name in names]))
        if not found:
            raise wrong
        best = max(found, key=lambda option: (sum(map(is_column, option[1])), len(option[1])))
        comment = text.startswith("#") and not any(map(is_column, best[1]))
        if not line or (any(best[1]) and not comment):
            return best


def csv_rows(
    lines: Lines, delimiter: str
) -> Iterator[tuple[int, list[str] | csv.Error | RowTooLong]]:
    """The fields of each row, or its error, with the number of its first line.

    Empty rows are skipped. Bytes that are not UTF-8 become lone surrogates, so that the caller can
    refuse the field.
    """
    reader = csv.reader(map(decoded, lines), delimiter=delimiter, strict=True)
    while True:
        lines.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, RowTooLong) as error:
            lines.rewind()
            yield lines.first, error
        else:
            if any(map(str.strip, fields)):
                yield lines.first, fields


def csv_fields(line: str, delimiter: str) -> list[str]:
    """The fields of one line; none of an empty one. Raises csv.Error."""
    return next(csv.reader([line], delimiter=delimiter, strict=True), [])


def csv_problem(error: csv.Error) -> str:
    """The problem of a row, in words."""
    known = {
        "unexpected end of data": "a double quote is opened and never closed",
        "new-line character seen": "a carriage return stands within the row",
        "expected after": 'text follows a closing double quote; write "" for a quote in a field',
        "larger than field limit": f"a field is longer than {csv.field_size_limit()} letters",
    }
    return next((reason for sign, reason in known.items() if sign in str(error)), str(error))


def decoded(line: bytes) -> str:
    """A line with lone surrogates for bytes that are not UTF-8."""
    return line.decode("utf-8", errors="surrogateescape")
