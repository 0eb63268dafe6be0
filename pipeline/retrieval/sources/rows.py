"""From the values of a row to texts, alike for JSONL, CSV and Parquet."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.texts import Text, Unreadable

ROW_LIMIT = 1024 * 1024
"""Bytes of a row, or of a value where rows have no length of their own."""
COLUMNS = tuple(Text.model_fields)


def texts(values: Mapping[str, Any], source: SourceFile) -> list[Text]:
    """The passages of a row; other names than COLUMNS are ignored.

    Raises ValueError, which `reason` explains.
    """
    known = {name: values[name] for name in COLUMNS if values.get(name) is not None}
    if known.get("image") == "":
        del known["image"]
    if "image" in known:
        known["image"] = _image(known["image"], source)
    found = pieces(Text.model_validate({"source": source.label} | known))
    if not found:
        raise Unreadable("text: nothing is left without addresses and control characters")
    return found


def known_columns(names: Iterable[str]) -> list[str]:
    """Those of a table's columns that are read. Raises Unreadable where they tell nothing."""
    known = [name for name in names if name in COLUMNS]
    if not {"text", "image"} & set(known):
        raise Unreadable("no column is named text or image")
    if len(known) > len(set(known)):
        raise Unreadable("a column stands twice")
    return known


def reason(error: ValueError) -> str:
    """What is wrong with a row, in words."""
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


def _image(name: object, source: SourceFile) -> Any:
    try:
        return source.images.named(name, source.path.parent)
    except Unreadable as error:
        raise Unreadable(f"image: {error}") from error
