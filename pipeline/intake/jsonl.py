"""Job files in JSONL: an object in each line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import JobFileError
from pipeline.intake.rows import Lines, RawRow, RowTooLong, Value
from pipeline.intake.values import is_column, shown, unknown_column

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


def read(path: Path) -> Iterator[RawRow]:
    """The rows of a JSONL file by line; blank lines are left out.

    The first row stands for a header: an unknown column there raises JobFileError, because every
    row has it then. Further down it is a problem of its own row.
    """
    with path.open("rb") as file:
        lines, first = Lines(file), True
        while True:
            lines.begin_row()
            try:
                row = _row(lines.first, next(lines).decode("utf-8"))
            except StopIteration:
                return
            except RowTooLong as error:
                row = RawRow(lines.first, problem=str(error))
            except UnicodeDecodeError:
                row = RawRow(lines.first, problem="the line is not valid UTF-8")
            if row is None:
                continue
            if first and row.column and not is_column(row.column):
                raise JobFileError(f"Line {row.line}: {row.problem}")
            first = False
            yield row


def _row(number: int, line: str) -> RawRow | None:
    """The line's row; none where the line is blank."""
    if number == 1:
        line = line.removeprefix(_BOM)
    if not line.strip(" \t\r\n"):
        return None
    try:
        content = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except RecursionError:
        return RawRow(number, problem="the line is nested too deep")
    except ValueError as error:
        return RawRow(number, problem=f"not JSON: {error}")
    if not isinstance(content, dict):
        return RawRow(number, problem="the line is not a JSON object")
    return _flatten(number, content)


def _flatten(number: int, content: dict[str, Any]) -> RawRow:
    """The object's values by column, `meta` taken apart; the first wrong one is the problem."""
    values, column, problem = dict[str, Value](), "", ""
    for name, value in _entries(content):
        reason = _refusal(name, value)
        if reason and not problem:
            column, problem = name, reason
        elif not reason and value is not None:
            values[name] = value
    return RawRow(number, values, column, problem)


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if name == "meta" and isinstance(value, dict):
            yield from ((f"meta.{inner}", entry) for inner, entry in value.items())
        else:
            yield name, value


def _refusal(name: str, value: object) -> str:
    """Why a value cannot stand in a row; empty where it can."""
    if name == "meta":
        return "meta is an object of names and values"
    if not is_column(name):
        return unknown_column(name)
    if isinstance(value, bool | dict | list):
        return f"{shown(json.dumps(value))} is neither text nor a number"
    return ""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return content
