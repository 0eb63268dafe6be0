"""Job files in workbooks (.xlsx): a header in a sheet, then rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

from pipeline.errors import JobFileError
from pipeline.jobfile.columns import Columns, WrongColumn
from pipeline.jobfile.reading import Reading
from pipeline.jobfile.remarks import Remarks, Warn
from pipeline.jobfile.rows import ROW_LIMIT, RawRow, Value
from pipeline.jobfile.values import readable, shown
from pipeline.tabular.xlsx import Row, Sheet, Workbook, open_workbook

_SHEETS_NAMED = 20
_HIDDEN = "the row is hidden in its sheet, and read all the same"
_NAMELESS = "values under no name are kept as meta.column_N, by the number of their column"


def read(path: Path, reading: Reading, warn: Warn) -> Iterator[RawRow]:
    """The rows of a sheet by their numbers there; those without a value are skipped.

    Raises JobFileError for a sheet or a header that is not there, and Unreadable.
    """
    with _sheet(path, reading, warn) as (columns, rows):
        remarks = Remarks()
        for row in rows:
            values: dict[str, Value] = {_name(columns, n): cell for n, cell in row.cells.items()}
            problem, column = readable(row.problem, 200), _name(columns, row.place)
            if row.hidden:
                remarks.add(row.number, "", _HIDDEN)
            if max(row.cells, default=0) >= len(columns):
                remarks.add(row.number, "", _NAMELESS)
                if len(values) < len(row.cells):
                    problem = problem or "two of its cells have one column"
            yield RawRow(row.number, values, column if problem else "", problem)
        remarks.report(warn)


def columns_of(path: Path, reading: Reading) -> Sequence[str]:
    """Our columns for the sheet's header. Raises as `read`."""
    with _sheet(path, reading, lambda _: None) as (columns, _):
        return columns


@contextmanager
def _sheet(
    path: Path, reading: Reading, warn: Warn
) -> Iterator[tuple[Sequence[str], Iterator[Row]]]:
    """The columns of the sheet to read, and its rows below the header."""
    with open_workbook(path, ROW_LIMIT) as book:
        rows = book.rows(_chosen(path, book, reading.sheet))
        columns = Columns(warn, reading.columns)
        for row in rows:
            names = _names(row)
            if names[0].startswith("#") and not any(map(columns.knows, names)):
                continue
            if row.problem:
                raise JobFileError(f"Row {row.number}, the header: {readable(row.problem, 200)}.")
            try:
                kept = columns.keep(row.number, names)
            except WrongColumn as error:
                raise JobFileError(f"Row {row.number}: {error}") from error
            yield kept, rows
            return
    raise JobFileError(f"{path} is empty.")


def _names(row: Row) -> tuple[str, ...]:
    """The header's names, empty for columns without one."""
    last = max(chain(row.cells, [row.place]))
    return tuple(str(row.cells.get(place, "")).strip() for place in range(last + 1))


def _name(columns: Sequence[str], place: int) -> str:
    return columns[place] if place < len(columns) else f"meta.column_{place + 1}"


def _chosen(path: Path, book: Workbook, name: str) -> Sheet:
    """The sheet of a name, or the only one that is visible and holds anything."""
    names = ", ".join(shown(sheet.name) for sheet in book.sheets[:_SHEETS_NAMED])
    if name:
        found = [sheet for sheet in book.sheets if sheet.name.casefold() == name.casefold()]
        if not found:
            raise JobFileError(f"{path} has no sheet {shown(name)}; it has {names}.")
        return found[0]
    # a damaged workbook may name one part as very many sheets
    visible = {sheet.part.lower(): sheet for sheet in book.sheets if not sheet.hidden}
    filled = (sheet for sheet in visible.values() if next(book.rows(sheet), None))
    full = list(islice(filled, 2))
    if len(full) > 1:
        raise JobFileError(
            f"{path} has several sheets with rows, such as {shown(full[0].name)} and "
            f"{shown(full[1].name)}; choose one: pressrun check FILE --sheet {shown(full[0].name)}"
        )
    if not full:
        raise JobFileError(f"{path} is empty.")
    return full[0]
