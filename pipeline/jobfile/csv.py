"""Job files in CSV: a header, then a row each; comma, semicolon or tab between the fields."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import Columns, WrongColumn, is_column
from pipeline.jobfile.remarks import Warn
from pipeline.jobfile.rows import ROW_LIMIT, ROW_LINES, RawRow, Value, suffix_of
from pipeline.tabular.rows import Lines, RowTooLong, csv_header, csv_problem, csv_rows, decoded


def read(path: Path, warn: Warn) -> Iterator[RawRow]:
    """The rows of a CSV file, each with the line it begins at; blank lines are left out.

    Raises JobFileError for a header that is not understood.
    """
    with path.open("rb") as file:
        lines = Lines(file, ROW_LIMIT, ROW_LINES)
        delimiter, names = _read_header(lines, "\t" if suffix_of(path) == ".tsv" else ",;\t")
        columns = _kept(lines.first, names, warn)
        for first, fields in csv_rows(lines, delimiter):
            if isinstance(fields, RowTooLong):
                column = _longest(columns, lines.first_line(), delimiter)
                yield RawRow(first, column=column, problem=str(fields))
            elif isinstance(fields, csv.Error):
                yield RawRow(first, problem=csv_problem(fields))
            else:
                yield _row(first, columns, fields, delimiter)


def _row(line: int, columns: Sequence[str], fields: list[str], delimiter: str) -> RawRow:
    values: dict[str, Value] = {
        name: field for name, field in zip(columns, fields, strict=False) if field and name
    }
    if not any(fields[len(columns) :]):
        return RawRow(line, values)
    hint = f"put a field that holds {delimiter!r} in double quotes"
    problem = f"{len(fields)} fields under {len(columns)} columns; {hint}"
    return RawRow(line, values, problem=problem)


def _longest(columns: Sequence[str], line: bytes, delimiter: str) -> str:
    """The column that takes most of a row which is too long, as far as its first line tells."""
    try:
        fields = next(csv.reader([decoded(line)], delimiter=delimiter), [])
    except csv.Error:
        return ""
    sizes = [len(field) for field in fields[: len(columns)]]
    return columns[sizes.index(max(sizes))] if sizes else ""


def _read_header(lines: Lines, delimiters: str) -> tuple[str, list[str]]:
    try:
        return csv_header(lines, delimiters, is_column)
    except UnicodeDecodeError as error:
        reason = f"Line {lines.first} is not UTF-8 text; save the file as UTF-8."
        raise JobFileError(reason) from error
    except (csv.Error, RowTooLong) as error:
        raise JobFileError(f"Line {lines.first}, the header: {error}.") from error


def _kept(line: int, names: list[str], warn: Warn) -> Sequence[str]:
    try:
        return Columns(warn).keep(line, tuple(names))
    except WrongColumn as error:
        raise JobFileError(f"Line {line}: {error}") from error
