"""JSONL: an object in each line."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.knowledge.reading.files import SourceFile
from pipeline.knowledge.reading.lines import lines
from pipeline.knowledge.reading.rows import ROW_LIMIT, reason, texts
from pipeline.knowledge.reading.texts import BadText, Text, Unreadable


def read(source: SourceFile) -> Iterator[Text | BadText]:
    """The texts of each line; blank lines are left out."""
    with source.path.open("rb") as content:
        for number, line in enumerate(lines(content), 1):
            if not line.strip():
                continue
            try:
                yield from texts(_parsed(line), source)
            except ValueError as error:
                yield source.bad(reason(error), number)


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > ROW_LIMIT:
        raise Unreadable(f"the line is longer than {ROW_LIMIT} bytes")
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except RecursionError as error:
        raise Unreadable("the line is nested too deep") from error
    if not isinstance(content, dict):
        raise Unreadable("not a JSON object")
    return content
