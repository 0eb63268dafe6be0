"""Admission of jobs under a limit of device seconds, of accepted images, or both."""

import threading
from collections.abc import Collection

from pipeline.errors import RunError
from pipeline.job import Job
from pipeline.record import Status

FIRST = 4
"""Jobs that start before the cost of any is known."""


def work_of(job: Job) -> int:
    """A job's cost as known in advance: pixels times denoising steps, at most."""
    return job.contest_steps * job.rounds * job.width * job.height


def require_countable(quota: int | None, retry: Collection[Status]) -> None:
    """Raise RunError for a quota of images that are to be made again."""
    if quota is not None and Status.ACCEPTED in retry:
        raise RunError(
            "A --quota counts the images that are accepted already, and --retry accepted makes "
            "these again: give one of the two."
        )


class Budget:
    """A limit of device seconds, and a quota of accepted images; None is no limit. Thread-safe.

    A job starts only if its expected cost fits in what is left after the jobs in flight. The
    expected cost is the mean per unit of work so far, inflated while few jobs have ended. The
    limit is exceeded by the error of that estimate for the last jobs, and no more. The quota is
    never exceeded: a job starts only if it and all jobs in flight may be accepted.
    """

    def __init__(self, seconds: float | None = None, quota: int | None = None) -> None:
        self.seconds, self.spent = seconds, 0.0
        self.quota, self.accepted = quota, 0
        self.used_up = False
        self._jobs, self._done = 0, 0
        self._in_flight = dict[str, int]()
        self._lock = threading.Lock()

    def admit(self, job: Job) -> bool:
        """Put a job in flight if it fits; False if it does not. The budget is used up, for good,
        when a job does not fit and none is in flight.
        """
        with self._lock:
            work = work_of(job)
            fits = not self.used_up and self._fits(work)
            if fits:
                self._in_flight[job.id] = work
            elif not self._in_flight:
                self.used_up = True
            return fits

    @property
    def quota_met(self) -> bool:
        """True where there is a quota and no further image may be accepted."""
        return self.quota is not None and self.accepted >= self.quota

    def ended(self, job_id: str, device_seconds: float, *, accepted: bool = False) -> None:
        """Charge a job that was in flight."""
        with self._lock:
            self.accepted += accepted
            self._jobs += 1
            self._done += self._in_flight.pop(job_id, 0)
            self.spent += device_seconds

    def requeued(self, job_id: str) -> None:
        """Take a job out of flight without a charge."""
        with self._lock:
            self._in_flight.pop(job_id, None)

    def _fits(self, work: int) -> bool:
        if self.quota is not None and self.accepted + len(self._in_flight) >= self.quota:
            return False
        if self.seconds is None:
            return True
        if self.spent >= self.seconds:
            return False
        if not self.spent:
            return len(self._in_flight) < FIRST
        expected = self.spent / self._done * (sum(self._in_flight.values()) + work)
        doubt = 1 + FIRST / self._jobs
        return self.spent + doubt * expected <= self.seconds
