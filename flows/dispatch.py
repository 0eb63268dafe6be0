"""Sends the jobs of a shard to the workers through a bounded window and learns how they ended."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from pipeline.errors import RunError
from pipeline.job import Job, Verdict
from pipeline.storing.books import RunBooks
from workers.queue import Message, Note, Queue

POLL = 1.0
SILENCE = 30.0


class Dispatcher:
    """Works through shards of one edition of a run.

    At most `window` jobs of a shard are queued at a time. An outcome is learned from the run's
    notes; when they fall silent, the store is asked, for it alone is the truth.
    """

    def __init__(self, queue: Queue, books: RunBooks, edition: str, window: int) -> None:
        self._queue, self._books = queue, books
        self._edition, self._window = edition, max(1, window)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have every shard in work end at its next look, with RunError."""
        self._stopped.set()

    def work(self, part: int, jobs: Iterable[Job], on_outcome: Callable[[Verdict], None]) -> None:
        """Take every job to its outcome; returns when all have one.

        Raises RunError when a worker complains or when none is left to answer.
        """
        last = self._queue.latest_note(self._books.run)
        waiting = deque(sorted(jobs, key=lambda job: (job.priority, _shape(job))))
        flying: set[str] = set()
        heard = time.monotonic()
        while waiting or flying:
            if self._stopped.is_set():
                raise RunError("The run was stopped.")
            self._refill(part, waiting, flying)
            notes = self._queue.notes(self._books.run, last, POLL)
            last = notes[-1].id if notes else last
            ended = list(_ended(notes, flying))
            if not ended and time.monotonic() - heard > SILENCE:
                ended = self._look_up(flying)
                heard = time.monotonic()
            if ended:
                heard = time.monotonic()
            for job_id, verdict in ended:
                flying.discard(job_id)
                on_outcome(verdict)

    def _refill(self, part: int, waiting: deque[Job], flying: set[str]) -> None:
        # half a window at a time, so that messages travel together
        if len(flying) > self._window // 2:
            return
        batch = [waiting.popleft() for _ in range(min(self._window - len(flying), len(waiting)))]
        self._queue.publish(
            Message(self._books.run, self._edition, part, job.id, job.priority) for job in batch
        )
        flying.update(job.id for job in batch)

    def _look_up(self, flying: set[str]) -> list[tuple[str, Verdict]]:
        """What the store knows of the jobs in flight; with no news and no worker, an error."""
        found = [(o.job_id, o.verdict) for o in self._books.outcomes(sorted(flying))]
        if not found and not self._queue.workers():
            raise RunError("No worker answers: see the worker's log, then resume the run.")
        return found


def _ended(notes: Iterable[Note], flying: set[str]) -> Iterator[tuple[str, Verdict]]:
    for note in notes:
        if note.problem:
            raise RunError(f"A worker cannot work on it: {note.problem}")
        if note.verdict and note.job_id in flying:
            yield note.job_id, note.verdict


def _shape(job: Job) -> tuple[int, int, int, float]:
    """Jobs of one shape are neighbours in the queue, so that they share the renderer's calls."""
    return job.width, job.height, job.steps, job.guidance
