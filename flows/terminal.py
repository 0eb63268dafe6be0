"""A run's progress on the terminal."""

import sys
from time import monotonic
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.tally import Standing

EVERY = 60.0
"""Seconds between two lines where there is no terminal."""


def bar_or_lines(run: str) -> "Bar | Lines":
    """The Listener on standard error: a bar on a terminal, a line each minute elsewhere."""
    return Bar(run) if sys.stderr.isatty() else Lines()


def say(line: str) -> None:
    """A line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


class Lines:
    """The Listener that writes a line at the start, each minute and at the end."""

    def __init__(self) -> None:
        self._due, self._last, self._paused = 0.0, "", ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last:
            say(self._last)

    def show(self, standing: Standing) -> None:
        """Write a line where one is due, or where a run pauses or goes on."""
        line = describe(standing)
        if monotonic() >= self._due or standing.paused not in ("", self._paused):
            say(line)
            self._due, line = monotonic() + EVERY, ""
        self._last, self._paused = line, standing.paused


def describe(standing: Standing) -> str:
    """A standing in one line."""
    counts = [f"{kind.value} {n}" for kind, n in sorted(standing.counts.items())]
    words = [standing.phase, f"{standing.done}/{standing.rows}" if standing.rows else "", *counts]
    if standing.left is not None:
        words.append(f"about {standing.left / 60:.0f} min left")
    if standing.paused:
        words.append(f"paused: {standing.paused}")
    return f"{standing.run}: {', '.join(filter(None, words))}"


class Bar:
    """The Listener that draws a bar on standard error while the block runs."""

    def __init__(self, run: str) -> None:
        self._paused = ""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(run, total=None, counts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, standing: Standing) -> None:
        """Draw it anew; why a run pauses is said once, above the bar."""
        self._bar.update(
            self._task,
            description=f"{standing.run}: paused" if standing.paused else standing.run,
            completed=standing.done,
            total=standing.rows or None,
            counts=" ".join(f"{kind.value} {n}" for kind, n in sorted(standing.counts.items())),
        )
        if standing.paused not in ("", self._paused):
            self._bar.console.print(f"paused: {standing.paused}", style="yellow", markup=False)
        self._paused = standing.paused
