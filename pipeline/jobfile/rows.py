"""What a reader of one format hands on: rows of plain values, or what is wrong with a row."""

from dataclasses import dataclass, field
from pathlib import Path

Value = str | int | float

ROW_LIMIT = 64 * 1024
"""Bytes that one row of a job file may take."""

ROW_LINES = 256
"""Lines that one row may span; they are read again where a quote turns out to be left open."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file: its values by column; an empty text is no value.

    `problem` says why the row cannot be read; `column` where, as far as that is known.
    """

    line: int
    values: dict[str, Value] = field(default_factory=dict)
    column: str = ""
    problem: str = ""


def takes_truth(column: str) -> bool:
    """Whether true and false, as formats with kinds of values have them, may stand there."""
    return column == "needs_context" or column.startswith("meta.")


def takes_lists(column: str) -> bool:
    """Whether a list of texts may stand there."""
    return column in ("tags", "licenses")


def suffix_of(path: Path) -> str:
    """The file's suffix in lower case, with its dot."""
    return path.suffix.lower()
