"""Decides how many jobs may still be begun with the device seconds that are left."""

import threading

from pipeline.job import Job

FIRST = 4
"""Jobs that are begun while nobody knows what one costs."""


def work_of(job: Job) -> int:
    """What is known of a job's cost before it is done: pixels times denoising steps, at most."""
    return job.candidates * job.rounds * job.steps * job.width * job.height


class Budget:
    """Device seconds that may be used, or with None as many as it takes. Called from many threads.

    A job is admitted where it still fits beside those in flight, each taken to cost as much for
    its work as those that have ended, and more while those are few. So what is used exceeds the
    budget by no more than the last jobs' costs differ from that.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self.spent = seconds, 0.0
        self.used_up = False
        self._jobs, self._done = 0, 0
        self._flying = dict[str, int]()
        self._lock = threading.Lock()

    def admit(self, job: Job) -> bool:
        """Whether a job may be begun now; then it is in flight. Where one does not fit and none is
        in flight, the budget is used up, and stays so.
        """
        with self._lock:
            work = work_of(job)
            fits = not self.used_up and self._fits(work)
            if fits:
                self._flying[job.id] = work
            elif not self._flying:
                self.used_up = True
            return fits

    def ended(self, job_id: str, device_seconds: float) -> None:
        """A job in flight has its outcome, and cost so much."""
        with self._lock:
            self._jobs += 1
            self._done += self._flying.pop(job_id, 0)
            self.spent += device_seconds

    def requeued(self, job_id: str) -> None:
        """A job in flight is to be begun again."""
        with self._lock:
            self._flying.pop(job_id, None)

    def _fits(self, work: int) -> bool:
        if self.seconds is None:
            return True
        if self.spent >= self.seconds:
            return False
        if not self.spent:
            return len(self._flying) < FIRST
        expected = self.spent / self._done * (sum(self._flying.values()) + work)
        doubt = 1 + FIRST / self._jobs
        return self.spent + doubt * expected <= self.seconds
