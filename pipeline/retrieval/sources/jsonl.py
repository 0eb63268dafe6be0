"""JSONL: an object in each line."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.rows import ROW_LIMIT, reason, texts
from pipeline.retrieval.sources.texts import BadText, Text, Unreadable
from pipeline.tabular.rows import Lines, RowTooLong


def read(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each line; blank lines are left out."""
    with source.path.open("rb") as content:
        lines = Lines(content, ROW_LIMIT)
        while True:
            lines.begin_row()
            try:
                if not (line := next(lines, b"")):
                    return
                if line.strip():
                    yield from texts(_parsed(line), source)
            except RowTooLong as error:
                yield source.bad(str(error), lines.first)
            except ValueError as error:
                yield source.bad(reason(error), lines.first)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except RecursionError as error:
        raise Unreadable("the line is nested too deep") from error
    if not isinstance(content, dict):
        raise Unreadable("not a JSON object")
    return content
