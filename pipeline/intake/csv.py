"""Job files in CSV: a header, then a row each; comma, semicolon or tab between the fields."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import JobFileError
from pipeline.intake.columns import Columns, Warn, WrongColumn, is_column
from pipeline.intake.rows import Lines, RawRow, RowTooLong, Value, suffix_of

_BOM = b"\xef\xbb\xbf"


def read(path: Path, warn: Warn) -> Iterator[RawRow]:
    """The rows of a CSV file, each with the line it begins at; blank lines are left out.

    Raises JobFileError for a header that is not understood.
    """
    with path.open("rb") as file:
        lines = Lines(file)
        delimiter, names = _read_header(lines, "\t" if suffix_of(path) == ".tsv" else ",;\t")
        columns = _kept(names, warn)
        reader = csv.reader(map(_decode, lines), delimiter=delimiter, strict=True)
        while True:
            lines.begin_row()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.rewind()
                yield RawRow(lines.first, problem=_explain(error))
            except RowTooLong as error:
                column = _longest(columns, lines.first_line(), delimiter)
                lines.rewind()
                yield RawRow(lines.first, column=column, problem=str(error))
            else:
                if fields:
                    yield _row(lines.first, columns, fields, delimiter)


def _decode(line: bytes) -> str:
    # what is not UTF-8 becomes half characters, which are refused when the value is read
    return line.decode("utf-8", errors="surrogateescape")


def _row(line: int, columns: Sequence[str], fields: list[str], delimiter: str) -> RawRow:
    values: dict[str, Value] = {
        name: field for name, field in zip(columns, fields, strict=False) if field and name
    }
    if len(fields) <= len(columns):
        return RawRow(line, values)
    hint = f"put a field that holds {delimiter!r} in double quotes"
    problem = f"{len(fields)} fields under {len(columns)} columns; {hint}"
    return RawRow(line, values, problem=problem)


def _longest(columns: Sequence[str], line: bytes, delimiter: str) -> str:
    """The column that takes most of a row which is too long, as far as its first line tells."""
    fields = next(csv.reader([_decode(line)], delimiter=delimiter), [])
    sizes = [len(field) for field in fields[: len(columns)]]
    return columns[sizes.index(max(sizes))] if sizes else ""


def _explain(error: csv.Error) -> str:
    known = {
        "unexpected end of data": "a double quote is opened and never closed",
        "new-line character seen": "a carriage return stands within the row",
        "expected after": 'text follows a closing double quote; write "" for a quote in a field',
        "larger than field limit": "a double quote is opened and never closed",
    }
    return next((reason for sign, reason in known.items() if sign in str(error)), str(error))


def _read_header(lines: Lines, delimiters: str) -> tuple[str, list[str]]:
    """The delimiter under which the header holds most known columns, and the columns."""
    lines.begin_row()
    try:
        line = next(lines, b"").removeprefix(_BOM).decode("utf-8")
        found = [(delimiter, _names(line, delimiter)) for delimiter in delimiters]
    except UnicodeDecodeError as error:
        raise JobFileError("Line 1 is not UTF-8 text; save the file as UTF-8.") from error
    except (csv.Error, RowTooLong) as error:
        raise JobFileError(f"Line 1, the header: {error}.") from error
    return max(found, key=lambda option: sum(map(is_column, option[1])))


def _names(line: str, delimiter: str) -> list[str]:
    fields = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    return [name.strip() for name in fields]


def _kept(names: list[str], warn: Warn) -> Sequence[str]:
    try:
        return Columns(warn).keep(1, tuple(names))
    except WrongColumn as error:
        raise JobFileError(f"Line 1: {error}") from error
