"""Reading single values. Every problem is a ValueError whose message is the reason."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from pipeline.errors import JobFileError
from pipeline.intake.rows import Value

FIELD_LIMIT = 2048
"""Bytes of UTF-8 that one field may take."""

_SPACES = re.compile(r"\s+")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks, which can hide text
    "\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"  # separators, byte order marks, half characters
)
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d[\d.,'’\s]*[,'’\s][\d.,'’\s]*\d")
_META = re.compile(r"meta\.[A-Za-z0-9_.-]{1,64}", re.ASCII)


def text(value: Value) -> str:
    """Composed (NFC) text in one line, without control characters, of bounded length."""
    if not isinstance(value, str):
        value = repr(value)
    if len(value) > FIELD_LIMIT:
        raise ValueError(_TOO_LONG)
    if value.isascii() and value.isprintable():
        return " ".join(value.split())
    if found := _UNSAFE.search(value):
        raise ValueError(_unsafe_reason(found[0]))
    clean = _SPACES.sub(" ", unicodedata.normalize("NFC", value)).strip()
    if not clean.isascii() and len(clean.encode()) > FIELD_LIMIT:
        raise ValueError(_TOO_LONG)
    return clean


def whole(value: Value) -> int:
    """A whole number; `4.0`, as spreadsheets write it, is 4."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    if not _WHOLE.fullmatch(value.strip()):
        raise ValueError(f"{shown(value)} is not a whole number{_separator_hint(value)}")
    return int(value.strip().partition(".")[0])


def number(value: Value) -> float:
    """A finite number with a decimal point."""
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            raise ValueError(f"{shown(value)} is not a number{_separator_hint(value)}")
        value = value.strip()
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{str(value)[:20]}… is too large") from None


READERS: dict[str, Callable[[Value], str | int | float]] = {
    "keywords": text,
    "id": text,
    "style": text,
    "negative": text,
    "candidates": whole,
    "threshold": number,
    "width": whole,
    "height": whole,
    "steps": whole,
    "guidance": number,
    "seed": whole,
    "collection": text,
    "k": whole,
    "mode": text,
    "contest": text,
    "wave": whole,
    "priority": whole,
}
"""Every column but `meta.*`, with what reads its values."""


def is_column(name: str) -> bool:
    """Whether a job file may have this column."""
    return name in READERS or _META.fullmatch(name) is not None


def unknown_column(name: str) -> str:
    """The reason why a column is refused, with the likeliest one that was meant."""
    if name.startswith("meta."):
        return f"column {shown(name)}: a name after meta. has 1 to 64 of A-Z a-z 0-9 _ . -"
    likely = get_close_matches(name.strip().lower(), READERS, n=1, cutoff=0.6)
    hint = f"did you mean {likely[0]!r}?" if likely else f"There are {', '.join(READERS)}."
    return f"unknown column {shown(name)}; {hint} Columns of your own begin with 'meta.'."


def check_columns(names: Sequence[str]) -> None:
    """Raises JobFileError unless a file can have these columns."""
    for name in names:
        if not is_column(name):
            raise JobFileError(unknown_column(name))
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin:
        raise JobFileError(f"Column {twin!r} stands twice.")
    if "keywords" not in names:
        raise JobFileError("There is no column 'keywords', the one column that must be there.")


def shown(value: object, limit: int = 60) -> str:
    """A value as a reason may quote it: short, on one line, harmless."""
    return f"'{readable(str(value), limit)}'"


def readable(value: str, limit: int) -> str:
    """Text made harmless and cut to a length."""
    cut = value[: limit + 1]
    clean = _SPACES.sub(" ", _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", cut)).strip()
    return clean if len(cut) <= limit else f"{clean[: limit - 1]}…"


_TOO_LONG = f"the field is longer than {FIELD_LIMIT} bytes"


def _unsafe_reason(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return "the text is not valid UTF-8"
    return f"the character U+{ord(character):04X} is not allowed"


def _separator_hint(value: str) -> str:
    if _GROUPED.fullmatch(value.strip()):
        return "; write a decimal point and no thousands separators"
    return ""
