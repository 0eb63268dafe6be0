"""CSV: a header, then a row each; comma, semicolon or tab between the fields."""

import csv
from collections.abc import Iterator, Sequence

from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.rows import COLUMNS, ROW_LIMIT, known_columns, reason, texts
from pipeline.retrieval.sources.texts import BadText, Text, Unreadable
from pipeline.tabular.rows import Lines, RowTooLong, csv_header, csv_problem, csv_rows

ROW_LINES = 1000
"""Lines that a row may span; they are read again where a quote turns out to be left open."""


def read(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each row, and what is wrong with a row by the line at which it begins."""
    with source.path.open("rb") as content:
        lines = Lines(content, ROW_LIMIT, ROW_LINES)
        try:
            delimiter, names = csv_header(lines, ",;\t", lambda name: name.lower() in COLUMNS)
            names = [name.lower() if name.lower() in COLUMNS else name for name in names]
            known_columns(names)
        except (ValueError, csv.Error, RowTooLong) as error:
            yield source.bad(_explained(error), 1)
            return
        for number, fields in csv_rows(lines, delimiter):
            try:
                if not isinstance(fields, list):
                    raise fields
                yield from texts(_values(names, fields), source)
            except (ValueError, csv.Error, RowTooLong) as error:
                yield source.bad(_explained(error), number)


def _values(names: Sequence[str], fields: list[str]) -> dict[str, str | list[str]]:
    """The fields that hold something by their columns. Raises ValueError."""
    if any(fields[len(names) :]):
        raise Unreadable(f"{len(fields)} fields under {len(names)} columns")
    "".join(fields).encode()  # fails for bytes that were no UTF-8
    values: dict[str, str | list[str]] = {
        name: field for name, field in zip(names, fields, strict=False) if field
    }
    if "tags" in values:
        values["tags"] = str(values["tags"]).split("|")
    return values


def _explained(error: Exception) -> str:
    if isinstance(error, csv.Error):
        return csv_problem(error)
    return reason(error) if isinstance(error, ValueError) else str(error)
