"""The result of reading any format: rows of plain values, or a row's problem."""

from dataclasses import dataclass, field
from pathlib import Path

Value = str | int | float

ROW_LIMIT = 64 * 1024
"""Bytes that one row of a job file may take."""

ROW_LINES = 256
"""Lines that one row may span; they are read again after a quote that is never closed."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of the file: its values by column; an empty text is no value.

    `problem` is the reason why the row cannot be read, `column` its place if that is known.
    """

    line: int
    values: dict[str, Value] = field(default_factory=dict)
    column: str = ""
    problem: str = ""


SAVE_AS_UTF8 = (
    "save it as CSV UTF-8 (Excel: Save As, CSV UTF-8; Sheets: File, Download, CSV), or name its "
    "encoding, often cp1252: pressrun check FILE --encoding cp1252"
)


def suffix_of(path: Path) -> str:
    """The file's suffix in lower case, with its dot; that of a packed file has two."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + suffix if suffix == ".gz" else suffix


def stem_of(path: Path) -> str:
    """The file's name without its suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]
