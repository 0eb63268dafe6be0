"""A command's report as text."""

import io
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

LAST = "gallery"
"""The entry to open, shown as an address in the last line."""
WIDE = 100_000
"""Columns in a pipe or a file, so that no line is wrapped."""


def show(report: dict[str, Any]) -> None:
    """Print name and value of each entry in a line, and lists of mappings as tables."""
    lines = {name: value for name, value in report.items() if not _is_table(value)}
    if gallery := lines.pop(LAST, None):
        lines[LAST] = link(gallery)
    width = max(map(len, lines), default=0)
    for name, value in report.items():
        if _is_table(value):
            table = Table(title=name.replace("_", " "), title_justify="left")
            for column in value[0]:
                table.add_column(column.replace("_", " "), overflow="fold")
            for row in value:
                table.add_row(*map(_plain, row.values()))
            text = io.StringIO()
            columns = None if sys.stdout.isatty() else WIDE
            Console(file=text, width=columns, markup=False).print(table)
            print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))
    for name, value in lines.items():
        print(f"{name.replace('_', ' '):{width}}  {_plain(value)}".rstrip())


def link(address: str) -> str:
    """The address as a URL; a path becomes a file: URL."""
    return address if "://" in address else Path(address).absolute().as_uri()


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name} {count}" for name, count in value.items()]
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    text = "–" if value is None else str(value)
    # names come from others and may hold terminal escapes
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
