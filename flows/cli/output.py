"""Output, exit codes and interruption of commands."""

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import RunError
from pipeline.masking import mask

if TYPE_CHECKING:
    from pipeline.record import Status

UNSOUND = 1
FAILED_ROWS = 3
OUT_OF_BUDGET = 4
NAMED_ROWS = 5
INTERRUPTED = 130
PATIENCE = 8.0
"""Seconds for an interrupted command to end in order."""
SHOW_CURSOR = "\x1b[?25h"
LAST = "gallery"
"""The entry to open, shown as an address in the last line."""
WIDE = 100_000
"""Columns in a pipe or a file, so that no line is wrapped."""

console = Console(stderr=True)


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM inside the block end the command with this message, within PATIENCE
    seconds, or at once on a second signal.
    """
    ending = _Ending(message)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ending)
    try:
        yield
    except BaseException:
        if not ending.code:
            raise
        # the interruption is reported, not the errors that it caused
        ending.say()
        sys.exit(ending.code)


class _Ending:
    """A signal handler; `code` is the exit code, 0 before the first signal."""

    def __init__(self, message: str) -> None:
        self._message, self.code, self._said = message, 0, False

    def __call__(self, number: int, _: object) -> None:
        if self.code:
            self._now()
        self.code = 128 + number
        overdue = threading.Timer(PATIENCE, self._now)
        overdue.daemon = True
        overdue.start()
        raise KeyboardInterrupt

    def say(self) -> None:
        """Print the message, once."""
        if not self._said:
            self._said = True
            # unbuffered: the signal may have interrupted a holder of the buffer's lock
            shown = f"{SHOW_CURSOR}{self._message}" if os.isatty(2) else self._message
            os.write(2, f"{shown}\n".encode())

    def _now(self) -> None:
        self.say()
        os._exit(self.code)  # the reaper ends our child processes


def resumable(run: str, store: str | None) -> str:
    """The message of an interrupted run."""
    onward, look = next_steps(run, store)
    return f"Interrupted. What is done is kept; `{look}` shows it, `{onward}` goes on."


def next_steps(run: str, store: str | None) -> tuple[str, str]:
    """The commands to resume an unfinished run and to show its results so far."""
    more = f" --store {quote(store)}" if store else ""
    return f"pressrun resume {run}{more}", f"pressrun gallery {run}{more}"


def end(report: dict[str, Any], as_json: bool, fail_on: "Collection[Status]" = ()) -> None:
    """Print the counts of a job file's rows and exit with their code."""
    answer(report, as_json)
    if code := exit_code(report, fail_on):
        raise typer.Exit(code)


def exit_code(report: dict[str, Any], fail_on: "Collection[Status]") -> int:
    """The exit code for these counts: 0, or the code of the most serious reason."""
    if report.get("lost") or report.get("unexpected"):
        return UNSOUND
    if "stopped" in report and not report.get("quota_met"):
        return OUT_OF_BUDGET
    if any(report.get(status) for status in fail_on):
        return NAMED_ROWS
    if report.get("failed") or report["invalid"] == report["rows"]:
        return FAILED_ROWS
    return 0


def agree(change: str) -> None:
    """Confirm on the terminal. Raises RunError without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RunError(f"{change} Go on with --yes, or give it a name of its own with --run.")
    typer.confirm(f"{change} Go on?", abort=True, err=True)


def stop(message: str, code: int) -> NoReturn:
    """End the command with one line on standard error."""
    console.print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def answer(report: dict[str, Any], as_json: bool) -> None:
    """Print a report, as text or as one JSON object."""
    text = mask(json.dumps(report))
    if as_json:
        print(text)
    else:
        show(json.loads(text))


def show(report: dict[str, Any]) -> None:
    """Print a report as text: a line for each entry, and a table for a list of mappings."""
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
