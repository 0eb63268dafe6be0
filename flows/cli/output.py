"""How commands answer and how they end."""

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
"""Seconds in which an interrupted command ends in order."""
SHOW_CURSOR = "\x1b[?25h"

console = Console(stderr=True)


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM inside end the command with this message: within PATIENCE seconds,
    or at once where there is a second one.
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
        # whatever else broke on the way
        ending.say()
        sys.exit(ending.code)


class _Ending:
    """The handler of signals; `code` is 0 before the first one."""

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
            # not through buffers, whose locks a signal may find held
            shown = f"{SHOW_CURSOR}{self._message}" if os.isatty(2) else self._message
            os.write(2, f"{shown}\n".encode())

    def _now(self) -> None:
        self.say()
        os._exit(self.code)  # the minder ends what we have started


def resumable(run: str, store: str | None) -> str:
    """What is said where a run was interrupted."""
    onward, look = next_steps(run, store)
    return f"Interrupted. What is done is kept; `{look}` shows it, `{onward}` goes on."


def next_steps(run: str, store: str | None) -> tuple[str, str]:
    """The commands that go on with a run which was not ended, and that show what is done of it."""
    more = f" --store {quote(store)}" if store else ""
    return f"pressrun resume {run}{more}", f"pressrun gallery {run}{more}"


def end(report: dict[str, Any], as_json: bool, fail_on: "Collection[Status]" = ()) -> None:
    """Answer with the counts of a job file's rows; the exit code tells what is wrong with them."""
    answer(report, as_json)
    if code := exit_code(report, fail_on):
        raise typer.Exit(code)


def exit_code(report: dict[str, Any], fail_on: "Collection[Status]") -> int:
    """The exit code for these counts: 0, or of several reasons the one that says most."""
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
    """Ask on the terminal whether to go on. Raises RunError where nobody is there to answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RunError(f"{change} Go on with --yes, or give it a name of its own with --run.")
    typer.confirm(f"{change} Go on?", abort=True, err=True)


def stop(message: str, code: int) -> NoReturn:
    """End the command with one line on standard error."""
    console.print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def answer(report: dict[str, Any], as_json: bool) -> None:
    """Print a report, for a person or as one JSON object."""
    said = mask(json.dumps(report))
    if as_json:
        print(said)
        return
    from flows.cli.reports import show

    show(json.loads(said))
