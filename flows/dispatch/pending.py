"""The jobs of a shard without an outcome: waiting, in flight, requeued or lost."""

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pipeline.job import BatchKey, Job


@dataclass(frozen=True)
class Waits:
    """The seconds that a dispatcher waits for what does not come."""

    first_look: float = 5.0
    """Until a job in flight is looked up in the store; twice as long before each further look."""
    longest_look: float = 60.0
    overtaken: float = 5.0
    """By which a job was sent before another one that has started, and so counts as lost."""
    silence: float = 15.0
    """Without any event in the whole run, after which jobs count as lost."""
    long_silence: float = 150.0
    """Without any event in one shard, likewise."""
    longest_requeue: float = 60.0
    """Until a requeued job is sent again."""
    poll: float = 1.0
    """For the next event."""
    cancel_look: float = 3.0
    """Between two looks for a cancellation in the store."""
    no_worker: float = 60.0
    """Without a worker, after which the run fails."""


@dataclass
class SentJob:
    """A job in flight; `look` is the time of its next look-up in the store, `wait` the interval
    before it.

    Times are in seconds of a monotonic clock.
    """

    job: Job
    sent: float
    look: float
    wait: float


class PendingJobs:
    """The jobs of one shard that have no outcome yet; falsy once there are none."""

    def __init__(self, jobs: Iterable[Job], now: float, waits: Waits) -> None:
        self._waits = waits
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
        """The jobs to send now: at most `window` are in flight, and `admit` accepts each.

        New ones go half a window at a time, so that one request carries many messages.
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
        first = self._waits.first_look
        for job in jobs:
            self._in_flight[job.id] = SentJob(job, now, now + first, first)
        return jobs

    def ended(self, job_id: str, now: float) -> bool:
        """Drop a job that has its outcome; False if it is not in flight here."""
        sent = self._in_flight.pop(job_id, None)
        if sent is None:
            return False
        self._hear(sent, now)
        return True

    def requeued(self, job_id: str, now: float) -> bool:
        """Schedule a requeued job after a growing wait with full jitter; False as in `ended`."""
        sent = self._in_flight.pop(job_id, None)
        if sent is None:
            return False
        self._hear(sent, now)
        times = self._times_requeued[job_id] = self._times_requeued.get(job_id, 0) + 1
        longest = min(self._waits.longest_requeue, 2.0**times)
        self._requeued.append((now + random.uniform(0.1, longest), sent.job))
        return True

    def due(self, now: float) -> list[str]:
        """The jobs to look up in the store now, each at doubling intervals."""
        due = [job_id for job_id, sent in self._in_flight.items() if sent.look <= now]
        for sent in map(self._in_flight.__getitem__, due):
            sent.wait = min(self._waits.longest_look, 2 * sent.wait)
            sent.look = now + sent.wait
        return due

    def lost(
        self,
        asked: Collection[str],
        leased: Collection[str],
        now: float,
        silence: float | None = None,
    ) -> list[Job]:
        """The jobs to send again, out of the `asked` ones, which have no outcome in the store.

        `leased` are all jobs held by workers. The queue is first in, first out: a job without a
        lease is lost when one sent well after it has started, or when no event arrives. `silence`
        is the time without events in all shards of the run, if there are others.
        """
        for job_id in leased:
            if job_id in self._in_flight:
                self._hear(self._in_flight[job_id], now)
        own, waits = self.silence(now), self._waits
        everywhere = min(own, own if silence is None else silence)
        silent = own > waits.long_silence or everywhere > waits.silence
        lost = []
        for sent in [self._in_flight[i] for i in asked if i in self._in_flight and i not in leased]:
            if silent or sent.sent + waits.overtaken < self._begun:
                sent.sent = now
                lost.append(sent.job)
        return lost

    def silence(self, now: float) -> float:
        """Seconds since the last event or lease of the jobs."""
        return now - self._heard

    def _hear(self, sent: SentJob, now: float) -> None:
        self._heard, self._begun = now, max(self._begun, sent.sent)


def _neighbours(job: Job) -> tuple[int, BatchKey, tuple[str, ...], int, float]:
    """The sort key that puts jobs which may share a batch next to each other; among them those of
    equal LoRAs, which are computed together, and of equal steps and guidance, because a call of the
    reference renderer has one of each.
    """
    loras = tuple(lora.digest for lora in job.loras)
    return job.priority, job.batch_key, loras, job.steps, job.guidance
