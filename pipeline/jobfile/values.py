"""Reads single values. Every problem is a ValueError with the reason as its message."""

import re
import unicodedata
from collections.abc import Callable
from typing import get_args, get_origin

from pipeline.job import InputImage
from pipeline.jobfile.rows import Value
from pipeline.options import COLUMNS

FIELD_LIMIT = 2048
"""Bytes of UTF-8 that one field may take."""
MOST_PATHS = 8
NUMBER_LIMIT = 40
"""Characters of a number."""

_MARKS = re.compile("[\u061c\u200e\u200f\ufeff]")
_BREAKS = re.compile("[\x0b\x0c\u2028\u2029]")
_SPACES = re.compile(r"\s+")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks, which can hide text
    "\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"  # separators, byte order marks, lone surrogates
)
_WHOLE = re.compile(r"[+-]?\d{1,20}(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d(?=[\d.]*[,'’\s])[\d.,'’\s]*\d")


def text(value: Value, limit: int = FIELD_LIMIT) -> str:
    """Composed (NFC) text in one line, without control characters, of bounded length."""
    if not isinstance(value, str):
        value = repr(value)
    if len(value) > limit:
        raise ValueError(_too_long(limit))
    if value.isascii() and value.isprintable():
        return " ".join(value.split())
    if found := _UNSAFE.search(value):
        if "\ud800" <= found[0] <= "\udfff":
            raise ValueError("the text is not valid UTF-8")
        raise ValueError(f"the character U+{ord(found[0]):04X} is not allowed")
    clean = _SPACES.sub(" ", unicodedata.normalize("NFC", value)).strip()
    if not clean.isascii() and len(clean.encode()) > limit:
        raise ValueError(_too_long(limit))
    return clean


def path(value: Value) -> str:
    """A file's path or an address: unlike other texts, its characters stay as they are."""
    given = str(value).strip()
    if len(given.encode(errors="surrogatepass")) > FIELD_LIMIT:
        raise ValueError(_too_long(FIELD_LIMIT))
    if found := _UNSAFE.search(given):
        raise ValueError(f"the character U+{ord(found[0]):04X} is not allowed")
    return given


def paths(value: Value) -> tuple[str, ...]:
    """At most MOST_PATHS paths separated by `|`, each once."""
    given = tuple(dict.fromkeys(filter(None, map(str.strip, path(value).split("|")))))
    if len(given) > MOST_PATHS:
        raise ValueError(f"{len(given)} images are too many; {MOST_PATHS} are the most")
    return given


def whole(value: Value) -> int:
    """A whole number; `4.0`, as spreadsheets write it, is 4."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    digits = value.strip()
    if len(digits) > NUMBER_LIMIT or not _WHOLE.fullmatch(digits):
        raise ValueError(f"{shown(value)} is not a whole number{_separator_hint(digits)}")
    return int(digits.partition(".")[0])


def number(value: Value) -> float:
    """A finite number with a decimal point."""
    if isinstance(value, str):
        digits = value.strip()
        if len(digits) > NUMBER_LIMIT or not _NUMBER.fullmatch(digits):
            raise ValueError(f"{shown(value)} is not a number{_separator_hint(digits)}")
        value = digits
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{str(value)[:20]}… is too large") from None


def names(value: Value) -> tuple[str, ...]:
    """Names separated by `|`, each once."""
    given = map(str.strip, text(value).split("|"))
    return tuple(dict.fromkeys(filter(None, given)))


def truth(value: Value) -> bool:
    """A boolean, in the spellings of people and spreadsheets."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    said = text(value).lower()
    if said not in known:
        raise ValueError(f"{shown(said)} is neither true nor false")
    return known[said]


def _reader(kind: object) -> Callable[[Value], str | int | float | tuple[str, ...]]:
    """The function that reads a column's values, by the type of its field."""
    if InputImage in get_args(kind):
        return paths if get_origin(kind) is tuple else path
    if kind is bool:
        return truth
    if kind is int:
        return whole
    if kind is float:
        return number
    return names if get_origin(kind) is tuple else text


READERS = {column: _reader(field.annotation) for column, (_, field, _) in COLUMNS.items()}
"""Every column but `meta.*`, with the function that reads its values."""


def takes_truth(column: str) -> bool:
    """True if the column takes booleans."""
    return READERS.get(column) is truth or column.startswith("meta.")


def takes_lists(column: str) -> bool:
    """True if the column takes a list of texts."""
    return READERS.get(column) in (names, paths)


def shown(value: object, limit: int = 60) -> str:
    """A value as a reason may quote it: short, on one line, harmless."""
    return f"'{readable(str(value), limit)}'"


def readable(value: str, limit: int) -> str:
    """Text made harmless and cut to a length."""
    cut = value[: limit + 1]
    clean = _SPACES.sub(" ", _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", cut)).strip()
    return clean if len(cut) <= limit else f"{clean[: limit - 1]}…"


def without_marks(value: str) -> str:
    """Text without the invisible marks of pasted text: harmless direction marks and byte order
    marks are removed, unusual line breaks become spaces.
    """
    return _BREAKS.sub(" ", _MARKS.sub("", value))


def _too_long(limit: int) -> str:
    return f"the field is longer than {limit} bytes"


def _separator_hint(value: str) -> str:
    if len(value) <= NUMBER_LIMIT and _GROUPED.fullmatch(value):
        return "; write a decimal point and no thousands separators"
    return ""
