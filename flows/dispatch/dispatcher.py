"""Sends the jobs of a run to the workers through a bounded window and learns how they ended."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol, Self, TypeVar

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from flows.dispatch.breaker import Breaker
from flows.dispatch.budget import Budget
from flows.dispatch.pending import PendingJobs, Waits
from pipeline.errors import RunError, StoreError, Unavailable
from pipeline.job import Job
from pipeline.record import Status
from pipeline.records.run_folder import RunFolder
from workers.queue.messages import JobDone, JobRequeued, Message, Queue, WorkerFailed

READ = 0.2
"""Longest wait of one call for events, and so for the reader at the end."""
GATHER = 0.05
"""Seconds to let events accumulate, so that one call reads many."""
WORKER_FAILURES = 3
PATIENCE = 900.0
JOBS_SHOWN = 10

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
Inbox = SimpleQueue[list[JobDone | JobRequeued]]
"""The events of a shard's jobs that its thread has not seen yet."""


class Progress(Protocol):
    """A receiver of the run's progress; its methods are called from any thread."""

    def count(self, status: Status, device_seconds: float = 0.0) -> None:
        """Count an outcome and its device seconds."""
        ...

    def pause(self, reason: str) -> None:
        """Report that the run pauses for this reason, or with an empty one that it resumes."""
        ...


class Stopped(RunError):
    """The run was stopped; what is done is kept, and `pressrun resume` goes on."""


class OutOfBudget(Stopped):
    """The budget is used up; what is done is kept, and `pressrun resume` goes on with the rest."""


class QuotaMet(Stopped):
    """The quota is met; what is done is kept, and `pressrun resume` goes on with the rest."""


class Dispatcher:
    """The dispatcher of one fingerprint of a run; each shard is worked on in its own thread.

    One thread reads the run's events while the block runs, and hands each to the shard of its job.
    At most `window` jobs of a shard are in flight; a callable is read each time. Outcomes come from
    the run's events or, if an event is missing, from the store, which is the truth. Lost jobs are
    sent again; a second delivery of a job that has its outcome costs one read of the store. The run
    waits up to PATIENCE seconds while Redis does not answer, the store refuses or the breaker is
    open. The shards share the `budget`. Without any worker the run fails after `waits.no_worker`
    seconds, or after `wait` if that is longer.
    """

    def __init__(
        self,
        queue: Queue,
        run_folder: RunFolder,
        fingerprint: str,
        window: int | Callable[[], int],
        progress: Progress,
        budget: Budget | None = None,
        wait: float = 0.0,
        waits: Waits | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._queue, self._run_folder, self._progress = queue, run_folder, progress
        self._fingerprint, self._wait = fingerprint, wait
        self._waits = waits or Waits()
        self._window = window if callable(window) else lambda: window
        self._stopped, self._looked = threading.Event(), 0.0
        self._failures, self._failure = 0, ""
        self._pending = dict[int, PendingJobs]()
        self._inboxes = dict[str, Inbox]()  # by the id of a job in flight
        self._last, self._closed = "", threading.Event()
        self._error: Exception | None = None
        self._reader = threading.Thread(target=self._read_events, name="events", daemon=True)
        self.breaker, self.budget = breaker or Breaker(), budget or Budget()
        self.sent_again = 0

    def __enter__(self) -> Self:
        # read before any job is sent, so that no event of theirs is missed
        self._last = self.patiently(lambda: self._queue.latest_event(self._run_folder.run))
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._reader.join()

    def stop(self) -> None:
        """Make each running shard raise Stopped at its next check."""
        self._stopped.set()

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """Retry the call while Redis or the store fails. Raises as `work` does."""
        return patiently(call, PATIENCE, self._check)

    @property
    def in_flight(self) -> int:
        """The number of jobs sent that have no outcome yet."""
        return sum(len(pending.in_flight) for pending in list(self._pending.values()))

    def work(
        self,
        shard: int,
        jobs: Iterable[Job],
        admitted: Callable[[Sequence[Job]], None] = lambda _: None,
    ) -> None:
        """Bring every job to its outcome; returns when all have one. `admitted` is called with
        jobs before they are sent, and again with those that went back.

        Raises OutOfBudget or QuotaMet when the jobs in flight have ended and no other one may
        start, Stopped, and RunError or Unavailable when the run cannot go on.
        """
        inbox = Inbox()
        pending = self._pending[shard] = PendingJobs(jobs, monotonic(), self._waits)
        while pending:
            self._check()
            room = self.breaker.room(max(2, self._window()))
            ready = pending.take(room, monotonic(), self.budget.admit)
            admitted(ready)
            self._inboxes |= {job.id: inbox for job in ready}
            self._send(shard, ready)
            if self.budget.used_up and not pending.in_flight:
                if self.budget.quota_met:
                    raise QuotaMet(f"{self.budget.accepted} images are accepted.")
                raise OutOfBudget(f"It was {self.budget.seconds:g} device seconds.")
            with suppress(Empty):
                for event in inbox.get(timeout=self._waits.poll):
                    if isinstance(event, JobDone):
                        self._end(event, pending)
                    elif pending.requeued(event.job_id, monotonic()):
                        self.budget.requeued(event.job_id)
                        self.sent_again += 1
                        self.breaker.requeued(event.reason)
                        self._progress.pause(self.breaker.reason)
            if due := pending.due(monotonic()):
                self._look_up(shard, due, pending)
        del self._pending[shard]

    def _read_events(self) -> None:
        """Hand each event of a job in flight to its shard. An error is raised in every shard."""

        def check() -> None:
            self._check()
            if self._closed.is_set():
                raise Stopped

        try:
            while not self._closed.is_set():
                after = partial(self._queue.events, self._run_folder.run, self._last, READ)
                found = defaultdict[Inbox, list[JobDone | JobRequeued]](list)
                for event_id, event in patiently(after, PATIENCE, check):
                    self._last = event_id
                    if isinstance(event, WorkerFailed):
                        self._worker_failed(event)
                        continue
                    if isinstance(event, JobDone):
                        self._failures = 0
                    if event and (inbox := self._inboxes.get(event.job_id)):
                        found[inbox].append(event)
                for inbox, received in found.items():
                    inbox.put(received)
                self._closed.wait(GATHER)
        except Exception as error:  # noqa: BLE001 - each shard raises it
            self._error = error

    def _check(self) -> None:
        """Raise Stopped if the run was stopped here or cancelled anywhere, RunError if it has been
        paused for too long, and the error of the thread that reads events.
        """
        now = monotonic()
        if now - self._looked > self._waits.cancel_look:
            self._looked = now
            with suppress(StoreError):  # the next check reads it again
                if self._run_folder.is_cancelled():
                    self.stop()
        if self._stopped.is_set():
            raise Stopped
        if self._error:
            raise self._error
        if self.breaker.open_for > PATIENCE:
            raise RunError(f"It paused for {PATIENCE / 60:.0f} minutes: {self.breaker.reason}")

    def _send(self, shard: int, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        run, fingerprint = self._run_folder.run, self._fingerprint
        store = self.patiently(lambda: self._run_folder.store_id)
        messages = [Message(run, fingerprint, shard, job.id, job.priority, store) for job in jobs]
        self.patiently(lambda: self._queue.publish(messages))

    def _end(self, done: JobDone, pending: PendingJobs) -> None:
        if pending.ended(done.job_id, monotonic()):
            self._inboxes.pop(done.job_id, None)
            accepted = done.status is Status.ACCEPTED
            self.budget.ended(done.job_id, done.device_seconds, accepted=accepted)
            if self.breaker.ended():
                self._progress.pause("")
            self._progress.count(done.status, done.device_seconds)

    def _look_up(self, shard: int, due: Sequence[str], pending: PendingJobs) -> None:
        """Read from the store the outcomes of due jobs without a lease; resend the lost ones."""
        run = self._run_folder.run
        leased = self.patiently(lambda: self._queue.leased(run, pending.in_flight))
        asked = [job_id for job_id in due if job_id not in leased]
        for outcome in self.patiently(lambda: list(self._run_folder.records.outcomes(asked))):
            self._end(JobDone(outcome.job_id, outcome.status, outcome.device_time), pending)
        silence = min(each.silence(monotonic()) for each in list(self._pending.values()))
        absent = silence > self._waits.no_worker and not self.patiently(self._queue.workers)
        if absent and silence > self._wait:
            why = self._failure or "see the worker's log"
            raise RunError(f"No worker answers: {why}. Then resume the run.")
        lost = pending.lost(asked, leased, monotonic(), silence)
        # without a worker they are still in the queue; more copies would only fill it
        if lost and not absent:
            first = [job.id for job in lost[:JOBS_SHOWN]]
            log.warning("jobs are sent again", run=run, count=len(lost), jobs=first)
            self.sent_again += len(lost)
            self._send(shard, lost)

    def _worker_failed(self, event: WorkerFailed) -> None:
        """Raise RunError if no other worker could do better, or if the next ones fail too."""
        self._failures += 1
        self._failure = event.reason
        log.warning("a worker cannot work", run=self._run_folder.run, reason=event.reason)
        if event.fatal or self._failures >= WORKER_FAILURES:
            raise RunError(f"A worker cannot work on it: {event.reason}")


def patiently(
    call: Callable[[], Answer], seconds: float, check: Callable[[], None] = lambda: None
) -> Answer:
    """Retry the call while Redis or the store fails, running `check`, which may raise, before each
    wait.

    Raises Unavailable or StoreError after `seconds`.
    """

    def before_sleep(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome:
            log.warning("the run waits", reason=str(state.outcome.exception()))
        check()

    retrying = Retrying(
        retry=retry_if_exception_type((Unavailable, StoreError)),
        wait=wait_random_exponential(multiplier=0.5, max=10),
        stop=stop_after_delay(seconds),
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(call)
