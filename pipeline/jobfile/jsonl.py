"""Job files in JSON: an object in each line, or objects in one array or over many lines."""

import codecs
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import LEFT_OUT, Columns, WrongColumn, column_of
from pipeline.jobfile.reading import Reading
from pipeline.jobfile.remarks import Warn
from pipeline.jobfile.rows import ROW_LIMIT, RawRow, Value
from pipeline.jobfile.values import shown, takes_lists, takes_truth
from pipeline.tabular.files import open_text
from pipeline.tabular.rows import BOM, Lines, RowTooLong

_AHEAD = 1024 * 1024
"""Letters of one object in an array; its row may have far fewer."""
_PRETTY = re.compile(rb"\{[ \t\r]*\n")
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_ANY = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Finds where a value ends, whatever it holds."""
_NAME_BEFORE = re.compile(r'"([a-zA-Z0-9_.-]+)"\s*:\s*\Z')


class _BadLine(Exception):
    """A line cannot be read as a row; the message is the reason."""


def read(path: Path, reading: Reading, warn: Warn) -> Iterator[RawRow]:
    """The rows of a JSON file: by line, without blank ones, or by the objects' numbers in a file
    that is an array or begins with an object over many lines.

    Wrong columns in the first row raise JobFileError, because all rows probably have them; further
    down they are a problem of their own row. Raises Unreadable.
    """
    columns, first, number = Columns(warn, reading.columns, header=False), True, 1
    with open_text(path, reading.encoding) as file:
        start = file.peek(64).removeprefix(BOM).lstrip()
        many = start[:1] == b"[" or _PRETTY.match(start) or _spans_lines(path, reading.encoding)
        for number, given in _values(path, file) if many else _lines(file):
            if isinstance(given, RawRow):
                yield given
                continue
            try:
                yield _row(number, given, columns)
            except WrongColumn as error:
                if first:
                    unit = "Object" if many else "Line"
                    raise JobFileError(f"{unit} {number}: {error}") from error
                yield RawRow(number, column=error.column, problem=str(error))
            first = False
        columns.tell_absent(number)


def _spans_lines(path: Path, encoding: str) -> bool:
    """True if the first value of a file takes more than a line."""
    with open_text(path, encoding) as file:
        text = file.read(_AHEAD).decode("utf-8", "surrogateescape")
    start = _past_space(text, 0)
    try:
        _, end = _ANY.raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        return False  # a broken line, or one with a part of a longer value
    return "\n" in text[start:end]


def _past_space(text: str, start: int) -> int:
    """The place from `start` on of the first character that is not blank, or the text's end."""
    blank = _SPACE.match(text, start)
    assert blank  # of no length, where there is none
    return blank.end()


def _lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes | RawRow]]:
    """The lines that are not blank, each with its number; a row for one that is too long."""
    lines = Lines(file, ROW_LIMIT)
    while True:
        lines.begin_row()
        try:
            line = next(lines)
        except StopIteration:
            return
        except RowTooLong as error:
            column = _broken_off(lines.first_line())
            yield lines.first, RawRow(lines.first, column=column, problem=str(error))
            continue
        if lines.first == 1:
            line = line.removeprefix(BOM)
        if line.strip(b" \t\r\n"):
            yield lines.first, line


def _values(path: Path, file: io.BufferedReader) -> Iterator[tuple[int, bytes | RawRow]]:
    """The values of an array, or those that follow one another, counted from 1; a row for one that
    is too long. Raises JobFileError behind the last value that can be read.
    """
    source, number = _Values(file), 0
    try:
        while value := source.value():
            number += 1
            if len(value) > ROW_LIMIT:
                problem = str(RowTooLong(f"{ROW_LIMIT // 1024} KB"))
                yield number, RawRow(number, column=_broken_off(value), problem=problem)
            else:
                yield number, value
    except _BadLine as error:
        raise JobFileError(f"{path} is not JSON behind object {number}: {error}.") from error


class _Values:
    """The values of an array, or those that follow one another, each of at most _AHEAD letters."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._array = self._take("[")

    def value(self) -> bytes:
        """The text of the next value; empty behind the last one. Raises _BadLine."""
        if not (letter := self._next()) or (self._array and letter == "]"):
            self._check_end()
            return b""
        try:
            _, end = _ANY.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            whole = self._ended and len(self._text) - self._at <= _AHEAD
            raise _BadLine(error.msg if whole else "the next one is broken, or too long") from error
        except RecursionError as error:
            raise _BadLine("the next one is nested too deep") from error
        value, self._at = self._text[self._at : end], end
        if self._array and not self._take(",") and self._next() not in ("]", ""):
            raise _BadLine("a comma or ] is missing")
        return value.encode("utf-8", "surrogateescape")

    def _check_end(self) -> None:
        if self._array and not self._take("]"):
            raise _BadLine("the array does not end")
        if self._next():
            raise _BadLine("something follows the array")

    def _next(self) -> str:
        """The next letter that is no space; empty at the end."""
        while True:
            while len(self._text) - self._at < _AHEAD and not self._ended:
                piece = self._file.read(_AHEAD)
                self._ended = not piece
                self._text = self._text[self._at :] + self._decoder.decode(piece, self._ended)
                self._at = 0
            self._at = _past_space(self._text, self._at)
            if self._ended or len(self._text) - self._at >= _AHEAD:
                return self._text[self._at : self._at + 1]

    def _take(self, letter: str) -> bool:
        """Skip the next letter if it is this one."""
        found = self._next() == letter
        self._at += found
        return found


def _row(number: int, text: bytes, columns: Columns) -> RawRow:
    """The row of an object. Raises WrongColumn."""
    try:
        content = json.loads(
            text.decode("utf-8"), parse_constant=_constant, object_pairs_hook=_no_twins
        )
        if not isinstance(content, dict):
            return RawRow(number, problem="it is not a JSON object")
        return _flatten(number, content, columns)
    except _BadLine as error:
        return RawRow(number, problem=str(error))
    except UnicodeDecodeError:
        return RawRow(number, problem="it is not valid UTF-8")
    except RecursionError:
        return RawRow(number, problem="it is nested too deep")
    except ValueError as error:
        return RawRow(number, problem=f"not JSON: {error}")


def _broken_off(line: bytes) -> str:
    """The column in which the start of a row that is too long breaks off; empty if unknown."""
    start = line.decode("utf-8", errors="replace")
    try:
        json.loads(start)
    except json.JSONDecodeError as error:
        found = _NAME_BEFORE.search(start, max(0, error.pos - 100), error.pos)
        return column_of(found[1]) if found else ""
    except (RecursionError, ValueError):
        return ""
    return ""


def _flatten(number: int, content: dict[str, Any], columns: Columns) -> RawRow:
    """The object's values by column, `meta` flattened; the first wrong one is the problem."""
    meta = content.pop("meta", None)
    if not isinstance(meta, dict | None):
        return RawRow(number, column="meta", problem="meta is an object of names and values")
    entries = content | {f"meta.{name}": value for name, value in (meta or {}).items()}
    if len(entries) < len(content) + len(meta or {}):
        raise _BadLine("a name of meta stands twice")
    values, column, problem = dict[str, Value](), "", ""
    for name, value in zip(columns.keep(number, tuple(entries)), entries.values(), strict=True):
        if value is None or name == LEFT_OUT:
            continue
        if (plain := _plain(name, value)) is not None:
            values[name] = plain
        elif not problem:
            column = name
            problem = f"{shown(json.dumps(value))} is neither text nor a number"
    return RawRow(number, values, column, problem)


def _plain(column: str, value: Any) -> Value | None:
    """A value as a row holds it; None for a type that the column does not take."""
    if isinstance(value, bool):
        return str(value).lower() if takes_truth(column) else None
    if isinstance(value, list | dict) and column.startswith("meta."):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        texts = takes_lists(column) and all(isinstance(each, str) for each in value)
        return "|".join(value) if texts else None
    return None if isinstance(value, dict) else cast(Value, value)


def _constant(name: str) -> float:
    """NaN, which Python writes for an empty cell. Raises ValueError for the infinities."""
    if name == "NaN":
        return math.nan
    raise ValueError(f"{name} is not a number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return content
