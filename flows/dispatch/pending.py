"""Which jobs of a shard wait, which are in flight, and which of those must have been lost."""

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pipeline.job import BatchKey, Job

FIRST_LOOK, LONGEST_LOOK = 5.0, 60.0
OVERTAKEN = 5.0
SILENCE, LONG_SILENCE = 15.0, 150.0
"""Seconds without a sign of any job: of the whole run, and of one shard of it."""
LONGEST_WAIT = 60.0


@dataclass
class SentJob:
    """A job that was sent; `look` is when to ask the store about it, unless its outcome is known.

    Times are in seconds of a monotonic clock.
    """

    job: Job
    sent: float
    look: float
    wait: float


class PendingJobs:
    """The jobs of one shard that have no outcome yet. False once there are none."""

    def __init__(self, jobs: Iterable[Job], now: float) -> None:
        self._waiting = deque(sorted(jobs, key=_neighbours))
        self._requeued: list[tuple[float, Job]] = []
        self._times_requeued: dict[str, int] = {}
        self._in_flight: dict[str, SentJob] = {}
        self._begun = self._heard = now

    def __bool__(self) -> bool:
        return bool(self._in_flight or self._waiting or self._requeued)

    @property
    def in_flight(self) -> tuple[str, ...]:
        """The ids of the jobs in flight."""
        return tuple(self._in_flight)

    def take(
        self, window: int, now: float, admit: Callable[[Job], bool] = lambda _: True
    ) -> list[Job]:
        """The jobs to send now, for at most `window` to be in flight, as far as `admit` lets them.

        New ones half a window at a time, so that messages travel together.
        """
        room = window - len(self._in_flight)
        ready = [job for due, job in self._requeued if due <= now][: max(0, room)]
        jobs = [job for job in ready if admit(job)]
        self._requeued = [entry for entry in self._requeued if entry[1] not in jobs]
        if len(self._in_flight) <= window // 2:
            count = min(room - len(jobs), len(self._waiting))
            while count > 0 and admit(self._waiting[0]):
                jobs.append(self._waiting.popleft())
                count -= 1
        for job in jobs:
            self._in_flight[job.id] = SentJob(job, now, now + FIRST_LOOK, FIRST_LOOK)
        return jobs

    def ended(self, job_id: str, now: float) -> bool:
        """A job has its outcome; False where it was none of ours, or known to have ended."""
        flight = self._in_flight.pop(job_id, None)
        if flight is None:
            return False
        self._hear(flight, now)
        return True

    def requeued(self, job_id: str, now: float) -> bool:
        """A job was handed back: it waits, longer each time and with full jitter."""
        flight = self._in_flight.pop(job_id, None)
        if flight is None:
            return False
        self._hear(flight, now)
        backs = self._times_requeued[job_id] = self._times_requeued.get(job_id, 0) + 1
        longest = min(LONGEST_WAIT, 2.0**backs)
        self._requeued.append((now + random.uniform(0.1, longest), flight.job))
        return True

    def due(self, now: float) -> list[str]:
        """The jobs that the store is to be asked about now; each is asked about ever less often."""
        due = [job_id for job_id, flight in self._in_flight.items() if flight.look <= now]
        for flight in map(self._in_flight.__getitem__, due):
            flight.wait = min(LONGEST_LOOK, 2 * flight.wait)
            flight.look = now + flight.wait
        return due

    def lost(
        self,
        asked: Collection[str],
        leased: Collection[str],
        now: float,
        silence: float | None = None,
    ) -> list[Job]:
        """The jobs to send again, of those that were `asked` about and have no outcome.

        `leased` are all that a worker has in hand. The queue is first in, first out: a job that
        nobody has was lost when one that was sent well after it was begun, or when nothing stirs;
        `silence` is how long in no shard of the run, where it has others.
        """
        for job_id in leased:
            if job_id in self._in_flight:
                self._hear(self._in_flight[job_id], now)
        own = self.silence(now)
        silent = own > LONG_SILENCE or min(own, own if silence is None else silence) > SILENCE
        lost = []
        for flight in [
            self._in_flight[i] for i in asked if i in self._in_flight and i not in leased
        ]:
            if silent or flight.sent + OVERTAKEN < self._begun:
                flight.sent = now
                lost.append(flight.job)
        return lost

    def silence(self, now: float) -> float:
        """Seconds since anything was heard of the jobs."""
        return now - self._heard

    def _hear(self, flight: SentJob, now: float) -> None:
        self._heard, self._begun = now, max(self._begun, flight.sent)


def _neighbours(job: Job) -> tuple[int, BatchKey, int, float]:
    """Jobs that may share a batch are neighbours in the queue; among them those of equal steps and
    guidance, as the reference renderer's calls have one of each.
    """
    return job.priority, job.batch_key, job.steps, job.guidance
