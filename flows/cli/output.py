"""Output, exit codes and interruption of commands."""

import json
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console

from pipeline.errors import RunError
from pipeline.masking import mask

if TYPE_CHECKING:
    from pipeline.job import Status

UNSOUND = 1
FAILED_ROWS = 3
OUT_OF_BUDGET = 4
NAMED_ROWS = 5
INTERRUPTED = 130
PATIENCE = 8.0
"""Seconds for an interrupted command to end in order."""
SHOW_CURSOR = "\x1b[?25h"

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
    if "stopped" in report:
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
        return
    from flows.cli.reports import show

    show(json.loads(text))
