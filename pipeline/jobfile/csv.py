"""Job files in CSV: a header, then rows; fields separated by comma, semicolon or tab."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import Columns, WrongColumn
from pipeline.jobfile.reading import Reading
from pipeline.jobfile.remarks import Warn
from pipeline.jobfile.rows import ROW_LIMIT, ROW_LINES, SAVE_AS_UTF8, RawRow, Value, suffix_of
from pipeline.tabular.files import open_text
from pipeline.tabular.rows import Lines, RowTooLong, csv_header, csv_problem, csv_rows, decoded


def read(path: Path, reading: Reading, warn: Warn) -> Iterator[RawRow]:
    """The rows of a CSV file, each with its first line; blank lines are skipped.

    Raises JobFileError for a header that cannot be read, and Unreadable.
    """
    with open_text(path, reading.encoding) as file:
        lines = Lines(file, ROW_LIMIT, ROW_LINES)
        delimiters = "\t" if suffix_of(path).startswith(".tsv") else ",;\t"
        delimiter, columns = _header(lines, delimiters, Columns(warn, reading.columns))
        for first, fields in csv_rows(lines, delimiter):
            if isinstance(fields, RowTooLong):
                column = _longest(columns, lines.first_line(), delimiter)
                yield RawRow(first, column=column, problem=str(fields))
            elif isinstance(fields, csv.Error):
                yield RawRow(first, problem=csv_problem(fields))
            else:
                pairs = zip(columns, fields, strict=False)
                values: dict[str, Value] = {name: field for name, field in pairs if field}
                hint = f"put a field that holds {delimiter!r} in double quotes"
                problem = f"{len(fields)} fields under {len(columns)} columns; {hint}"
                too_many = any(fields[len(columns) :])
                yield RawRow(first, values, problem=problem if too_many else "")


def _longest(columns: Sequence[str], line: bytes, delimiter: str) -> str:
    """The longest field's column of a row that is too long, judged by the row's first line."""
    try:
        fields = next(csv.reader([decoded(line)], delimiter=delimiter), [])
    except csv.Error:
        return ""
    sizes = [len(field) for field in fields[: len(columns)]]
    return columns[sizes.index(max(sizes))] if sizes else ""


def _header(lines: Lines, delimiters: str, columns: Columns) -> tuple[str, Sequence[str]]:
    """The delimiter and the columns. Raises JobFileError."""
    try:
        delimiter, names = csv_header(lines, delimiters, columns.knows)
        return delimiter, columns.keep(lines.first, tuple(names))
    except UnicodeDecodeError as error:
        raise JobFileError(f"Line {lines.first} is not UTF-8 text; {SAVE_AS_UTF8}") from error
    except (csv.Error, RowTooLong) as error:
        raise JobFileError(f"Line {lines.first}, the header: {error}.") from error
    except WrongColumn as error:
        raise JobFileError(f"Line {lines.first}: {error}") from error
