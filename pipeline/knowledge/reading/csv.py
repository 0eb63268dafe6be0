"""CSV: a header, then a row each; comma, semicolon or tab between the fields."""

import csv
from collections.abc import Iterator, Sequence
from typing import Self

from pipeline.knowledge.reading.files import SourceFile
from pipeline.knowledge.reading.lines import BOM, lines
from pipeline.knowledge.reading.rows import COLUMNS, ROW_LIMIT, known_columns, reason, texts
from pipeline.knowledge.reading.texts import BadText, Text, Unreadable

ROW_LINES = 1000
"""Lines that a row may span; they are read again where a quote turns out to be left open."""


def read(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each row, and what is wrong with a row by the line at which it begins."""
    with source.path.open("rb") as content:
        taken = _Lines(lines(content))
        try:
            delimiter, names = _header(next(taken, ""))
        except (ValueError, csv.Error) as error:
            yield source.bad(_explained(error), 1)
            return
        for number, fields in _rows(taken, delimiter):
            try:
                yield from texts(_values(names, fields), source)
            except ValueError as error:
                yield source.bad(reason(error), number)


def _rows(taken: "_Lines", delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each row's fields, or what is wrong with it, with the number of its first line."""
    reader = csv.reader(taken, delimiter=delimiter, strict=True)
    while True:
        taken.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, Unreadable) as error:
            taken.rewind()
            yield taken.first, _explained(error)
        else:
            if fields:
                yield taken.first, fields


def _values(names: Sequence[str], fields: list[str] | str) -> dict[str, str | list[str]]:
    """The fields that hold something by their columns. Raises ValueError."""
    if isinstance(fields, str):
        raise Unreadable(fields)
    if len(fields) > len(names):
        raise Unreadable(f"{len(fields)} fields under {len(names)} columns")
    "".join(fields).encode()  # fails for bytes that were no UTF-8
    values: dict[str, str | list[str]] = {
        name: field for name, field in zip(names, fields, strict=False) if field
    }
    if "tags" in values:
        values["tags"] = str(values["tags"]).split("|")
    return values


def _header(line: str) -> tuple[str, list[str]]:
    """The delimiter under which a header holds most known columns, and the columns.

    Raises ValueError and csv.Error.
    """
    line.encode()
    found = [(delimiter, _names(line, delimiter)) for delimiter in ",;\t"]
    best = max(found, key=lambda option: sum(name in COLUMNS for name in option[1]))
    known_columns(best[1])
    return best


def _names(line: str, delimiter: str) -> list[str]:
    fields = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    return [name.strip() for name in fields]


def _explained(error: Exception) -> str:
    known = {
        "unexpected end of data": "a double quote is opened and never closed",
        "larger than field limit": f"a field is longer than {csv.field_size_limit()} letters",
        "expected after": 'text follows a closing double quote; write "" for a quote in a field',
        "new-line character seen": "a carriage return stands within the row",
    }
    plain = reason(error) if isinstance(error, ValueError) else str(error)
    return next((words for sign, words in known.items() if sign in plain), plain)


class _Lines:
    """A file's lines, those of a row kept: one that never ends must cost only its first line."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self._row = list[bytes]()
        self._ahead = list[bytes]()
        self._taken = self._number = 0
        self.first = 1

    def begin_row(self) -> None:
        """The next line begins a row, whose number `first` then is."""
        self._row.clear()
        self._taken = 0
        self.first = self._number + 1

    def rewind(self) -> None:
        """Read everything after the row's first line again."""
        self._ahead += reversed(self._row[1:])
        self._number = self.first

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """The next line. Raises Unreadable where the row takes too much."""
        line = self._ahead.pop() if self._ahead else next(self._content)
        self._number += 1
        self._row.append(line)
        self._taken += len(line)
        if len(self._row) > ROW_LINES or self._taken > ROW_LIMIT:
            raise Unreadable(f"the row is longer than {ROW_LINES} lines or {ROW_LIMIT} bytes")
        # what is not UTF-8 becomes half characters, which are refused with the row
        line = line.removeprefix(BOM) if self._number == 1 else line
        return line.decode("utf-8", errors="surrogateescape")
