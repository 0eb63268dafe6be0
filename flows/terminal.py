"""A run's progress on the terminal."""

import sys
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.tally import Standing


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
