"""How commands answer and how they end."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console

from pipeline.masking import mask

FAILED_ROWS = 3
OUT_OF_BUDGET = 4
INTERRUPTED = 130

console = Console(stderr=True)


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Have Ctrl-C inside end the command with this message."""
    try:
        yield
    except KeyboardInterrupt:
        stop(message, INTERRUPTED)


def resumable(run: str) -> str:
    """What is said where a run was interrupted."""
    return f"Interrupted. What is done is kept; `pressrun resume {run}` goes on."


def end(summary: dict[str, Any], as_json: bool) -> None:
    """Answer with a run's summary; the exit code tells whether rows failed or were left."""
    answer(summary, as_json)
    if "stopped" in summary:
        raise typer.Exit(OUT_OF_BUDGET)
    if summary["failed"]:
        raise typer.Exit(FAILED_ROWS)


def stop(message: str, code: int) -> NoReturn:
    """End the command with one line on standard error."""
    console.print(message, style="bold red", markup=False, highlight=False)
    sys.exit(code)


def answer(report: dict[str, Any], as_json: bool) -> None:
    """Print a report, for a person or as one JSON object."""
    said = mask(json.dumps(report))
    if as_json:
        print(said)
        return
    from flows.reports import show

    show(json.loads(said))
