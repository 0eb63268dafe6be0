"""Job files in JSONL: one object per line."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import Columns, WrongColumn, column_of
from pipeline.jobfile.remarks import Warn
from pipeline.jobfile.rows import ROW_LIMIT, RawRow, Value
from pipeline.jobfile.values import shown, takes_lists, takes_truth
from pipeline.tabular.rows import BOM, Lines, RowTooLong

_NAME_BEFORE = re.compile(r'"([a-zA-Z0-9_.-]+)"\s*:\s*\Z')


class _BadLine(Exception):
    """A line cannot be read as a row; the message is the reason."""


def read(path: Path, warn: Warn) -> Iterator[RawRow]:
    """The rows of a JSONL file by line; blank lines are skipped.

    Wrong columns in the first row raise JobFileError, because all rows probably have them; further
    down they are a problem of their own row.
    """
    columns, first = Columns(warn), True
    with path.open("rb") as file:
        lines = Lines(file, ROW_LIMIT)
        while True:
            lines.begin_row()
            try:
                line = next(lines)
            except StopIteration:
                return
            except RowTooLong as error:
                column = _broken_off(lines.first_line())
                yield RawRow(lines.first, column=column, problem=str(error))
                continue
            if lines.first == 1:
                line = line.removeprefix(BOM)
            if not line.strip(b" \t\r\n"):
                continue
            yield _row(lines.first, line, columns, header=first)
            first = False


def _row(number: int, line: bytes, columns: Columns, header: bool) -> RawRow:
    try:
        content = json.loads(
            line.decode("utf-8"), parse_constant=_constant, object_pairs_hook=_no_twins
        )
        if not isinstance(content, dict):
            return RawRow(number, problem="the line is not a JSON object")
        return _flatten(number, content, columns)
    except WrongColumn as error:
        if header:
            raise JobFileError(f"Line {number}: {error}") from error
        return RawRow(number, column=error.column, problem=str(error))
    except _BadLine as error:
        return RawRow(number, problem=str(error))
    except UnicodeDecodeError:
        return RawRow(number, problem="the line is not valid UTF-8")
    except RecursionError:
        return RawRow(number, problem="the line is nested too deep")
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
        if not name or value is None:
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
