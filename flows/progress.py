"""Shows how far a run is: a bar on the terminal and a progress artifact in Prefect."""

import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows import artifacts
from pipeline.job import Verdict

ARTIFACT_EVERY = 2.0


class RunProgress:
    """Counts outcomes from any thread; the terminal's bar goes to standard error."""

    def __init__(self, run: str, rows: int) -> None:
        self._run, self._rows, self._done = run, rows, 0
        self._counts = Counter[Verdict]()
        self._lock = threading.Lock()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(run, total=rows, counts="")
        self._artifact = artifacts.show_progress(run)
        self._published = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._publish()

    def count(self, verdict: Verdict) -> None:
        """One more job has its outcome."""
        self._advance(1, verdict)

    def pause(self, reason: str) -> None:
        """The run has paused for a reason; an empty one: it goes on."""
        self._bar.update(self._task, description=f"{self._run}: paused" if reason else self._run)
        if reason:
            self._bar.console.print(f"paused: {reason}", style="yellow", markup=False)

    def skip(self, rows: int) -> None:
        """So many rows need no work: they are done, bad, or equal to another row."""
        self._advance(rows, None)

    def _advance(self, rows: int, verdict: Verdict | None) -> None:
        with self._lock:
            self._done += rows
            if verdict:
                self._counts[verdict] += 1
            text = " ".join(f"{kind.value} {n}" for kind, n in sorted(self._counts.items()))
            due = time.monotonic() - self._published > ARTIFACT_EVERY
            if due:
                self._published = time.monotonic()
        self._bar.update(self._task, completed=self._done, counts=text)
        if due:
            self._publish()

    def _publish(self) -> None:
        artifacts.update_progress(self._artifact, 100.0 * self._done / self._rows)
