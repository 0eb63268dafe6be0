"""A run's progress on the terminal."""

import sys
from time import monotonic
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.dispatch.progress import Snapshot

EVERY = 60.0
"""Seconds between two lines where there is no terminal."""


def bar_or_lines(run: str) -> "Bar | Lines":
    """The Listener on standard error: a bar on a terminal, a line each minute elsewhere."""
    return Bar(run) if sys.stderr.isatty() else Lines()


def say(line: str) -> None:
    """Print a line on standard error and flush it."""
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

    def show(self, snapshot: Snapshot) -> None:
        """Print a line when one is due or the run pauses."""
        line = describe(snapshot)
        if monotonic() >= self._due or snapshot.paused not in ("", self._paused):
            say(line)
            self._due, line = monotonic() + EVERY, ""
        self._last, self._paused = line, snapshot.paused


def describe(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    counts = [f"{kind.value} {n}" for kind, n in sorted(snapshot.counts.items())]
    words = [snapshot.phase, f"{snapshot.done}/{snapshot.rows}" if snapshot.rows else "", *counts]
    if snapshot.left is not None:
        words.append(f"about {snapshot.left / 60:.0f} min left")
    if snapshot.paused:
        words.append(f"paused: {snapshot.paused}")
    return f"{snapshot.run}: {', '.join(filter(None, words))}"


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

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the bar; the reason of a pause is printed once, above it."""
        self._bar.update(
            self._task,
            description=f"{snapshot.run}: paused" if snapshot.paused else snapshot.run,
            completed=snapshot.done,
            total=snapshot.rows or None,
            counts=" ".join(f"{kind.value} {n}" for kind, n in sorted(snapshot.counts.items())),
        )
        if snapshot.paused not in ("", self._paused):
            self._bar.console.print(f"paused: {snapshot.paused}", style="yellow", markup=False)
        self._paused = snapshot.paused
