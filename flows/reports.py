"""Shows a report of a command to a person."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(report: dict[str, Any]) -> None:
    """Name and value, one line each; a list of mappings becomes a table of its own."""
    console = Console()
    grid = Table.grid(padding=(0, 2))
    for name, value in report.items():
        if not _is_table(value):
            grid.add_row(f"[bold]{name.replace('_', ' ')}[/]", _plain(value))
    console.print(grid)
    for name, value in report.items():
        if _is_table(value):
            console.print(_table(name, value))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=name.replace("_", " "), title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    return table


def _plain(value: Any) -> str:
    from rich.markup import escape

    return escape((", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value))
