"""CSV and JSONL as sources, and the rules for rows that Parquet shares with them."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.texts import BadText, Text, Unreadable
from pipeline.tabular.rows import Lines, RowTooLong, csv_header, csv_problem, csv_rows

ROW_LIMIT = 1024 * 1024
"""Bytes of a row, or of a value in formats without row lengths."""
ROW_LINES = 1000
"""Lines of a CSV row; they are read again after a quote that is never closed."""
COLUMNS = tuple(Text.model_fields)


def read_csv(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each row below a header; a bad row is reported by its first line.

    Comma, semicolon or tab separate the fields, `|` the tags.
    """
    with source.path.open("rb") as content:
        lines = Lines(content, ROW_LIMIT, ROW_LINES)
        try:
            delimiter, names = csv_header(lines, ",;\t", lambda name: name.lower() in COLUMNS)
            names = [name.lower() if name.lower() in COLUMNS else name for name in names]
            known_columns(names)
        except (ValueError, csv.Error, RowTooLong) as error:
            yield source.bad(reason(error), 1)
            return
        for number, fields in csv_rows(lines, delimiter):
            try:
                if not isinstance(fields, list):
                    raise fields
                if any(fields[len(names) :]):
                    raise Unreadable(f"{len(fields)} fields under {len(names)} columns")
                "".join(fields).encode()  # raises for bytes that were not UTF-8
                values: dict[str, Any] = {
                    name: field for name, field in zip(names, fields, strict=False) if field
                }
                if "tags" in values:
                    values["tags"] = values["tags"].split("|")
                yield from texts(values, source)
            except (ValueError, csv.Error, RowTooLong) as error:
                yield source.bad(reason(error), number)


def read_jsonl(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each line, which is an object; blank lines are skipped."""
    with source.path.open("rb") as content:
        lines = Lines(content, ROW_LIMIT)
        while True:
            lines.begin_row()
            try:
                if not (line := next(lines, b"")):
                    return
                if not line.strip():
                    continue
                values = json.loads(line.decode("utf-8-sig"))
                if not isinstance(values, dict):
                    raise Unreadable("not a JSON object")
                yield from texts(values, source)
            except RecursionError:
                yield source.bad("the line is nested too deep", lines.first)
            except (ValueError, RowTooLong) as error:
                yield source.bad(reason(error), lines.first)


def texts(values: Mapping[str, Any], source: SourceFile) -> list[Text]:
    """The passages of a row; names other than COLUMNS are ignored.

    Raises ValueError, which `reason` explains.
    """
    known = {name: values[name] for name in COLUMNS if values.get(name) is not None}
    if known.get("image") == "":
        del known["image"]
    if "image" in known:
        try:
            known["image"] = source.images.named(known["image"], source.path.parent)
        except Unreadable as error:
            raise Unreadable(f"image: {error}") from error
    found = pieces(Text.model_validate({"source": source.label} | known))
    if not found:
        raise Unreadable("text: nothing is left without addresses and control characters")
    return found


def known_columns(names: Iterable[str]) -> list[str]:
    """The columns of a table that are read, in order.

    Raises Unreadable without a text or image column, and if a column is there twice.
    """
    known = [name for name in names if name in COLUMNS]
    if not {"text", "image"} & set(known):
        raise Unreadable("no column is named text or image")
    if len(known) > len(set(known)):
        raise Unreadable("a column stands twice")
    return known


def reason(error: Exception) -> str:
    """The problem of a row, in words."""
    if isinstance(error, csv.Error):
        return csv_problem(error)
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    return str(error)
