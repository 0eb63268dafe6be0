"""Messages between flow and workers: jobs one way, events the other.

Both are hints: the store is the truth, and a lost message or event costs time only.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Self, cast

import structlog
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import RedisError

from pipeline.errors import Unavailable
from pipeline.masking import mask
from pipeline.record import Outcome, Status
from workers.observability import tracing
from workers.queue import leases
from workers.queue.backlog import SENT
from workers.queue.celery_app import QUEUE, TASK, make_app
from workers.queue.connection import Address

EVENTS_KEPT = 10_000
TOGETHER = 500
"""Messages in one request, where the broker takes several."""
CANCEL_SECONDS = 24 * 3600

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JobDone:
    """A job's outcome is in the store; its model calls took `device_seconds`."""

    job_id: str
    status: Status
    device_seconds: float = 0.0


@dataclass(frozen=True)
class JobRequeued:
    """A worker gave a job back without an outcome; it has to be sent again."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class WorkerFailed:
    """A worker stopped working on the run; `fatal` if no other worker could do better."""

    reason: str
    worker: str
    fatal: bool


Event = JobDone | JobRequeued | WorkerFailed
"""An entry of a run's stream: worker to flow."""


@dataclass(frozen=True)
class Message:
    """A job's address: run, fingerprint, shard and job id, and the id of the store that holds them
    if the sender knows it. Priority 0 goes first, 9 last.
    """

    run: str
    fingerprint: str
    shard: int
    job: str
    priority: int = 5
    store: str = ""


def encode(event: Event) -> dict[str, str]:
    """The fields of an event's entry in the stream."""
    match event:
        case JobDone(job_id, status, seconds):
            return {"job": job_id, "status": status.value, "device_seconds": f"{seconds:.6g}"}
        case JobRequeued(job_id, reason):
            return {"job": job_id, "retry": reason}
        case WorkerFailed(reason, worker, fatal):
            return {"problem": reason, "worker": worker, "fatal": str(int(fatal))}


def decode(fields: Mapping[str, str]) -> Event:
    """The event of an entry's fields, as `encode` gave them. Raises ValueError for any others."""
    match fields:
        case {"problem": reason}:
            return WorkerFailed(reason, fields.get("worker", ""), fields.get("fatal") == "1")
        case {"job": job_id, "status": status}:
            seconds = float(fields.get("device_seconds", "0"))
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{seconds} is not a duration")
            return JobDone(job_id, Status(status), seconds)
        case {"job": job_id, "retry": reason}:
            return JobRequeued(job_id, reason)
        case _:
            raise ValueError(f"no kind of event has the fields {sorted(fields)}")


class Queue:
    """The Redis of flows and workers, and the broker if that is another server."""

    def __init__(self, url: str, broker_url: str = "") -> None:
        self._redis = Address.of(url).client()
        self._app = make_app(url, broker_url)

    @classmethod
    def connect(cls, url: str, broker_url: str = "") -> Self:
        """Open the queue and ping Redis. Raises ConfigError or Unavailable."""
        queue = cls(url, broker_url)
        try:
            queue._redis.ping()
        except RedisError as error:
            raise Unavailable(f"Redis: {error}") from error
        return queue

    def publish(self, messages: Iterable[Message]) -> None:
        """Send jobs, many in one request. Raises Unavailable, when some may have been sent."""
        context = tracing.inject_context()
        with _reported(), self._app.producer_or_acquire() as producer:
            try:
                with producer.batch(TOGETHER):
                    for message in messages:
                        self._app.send_task(
                            TASK,
                            kwargs=asdict(message),
                            queue=QUEUE,
                            priority=message.priority,
                            headers={SENT: time.time(), **context},
                            producer=producer,
                        )
            except AttributeError as error:
                # kombu closes the channel of a broker that refuses writes also under the others
                # that use it; they get a new one at the next call
                if producer.channel.connection:
                    raise
                raise Unavailable(f"the queue: the channel was closed ({error})") from error

    def publish_result(self, outcome: Outcome, lease: leases.Lease | None = None) -> None:
        """Report that an outcome is stored. With the `lease` of its job, the lease ends in the same
        step, and both happen a little later, together with others'.
        """
        event = JobDone(outcome.job_id, outcome.status, outcome.device_time)
        if lease:
            lease.leases.end_soon(lease, _events(outcome.run), EVENTS_KEPT, encode(event))
        else:
            self._report(outcome.run, event)

    def requeue(self, run: str, job: str, reason: str) -> None:
        """Report that a job is free again and has to be sent once more. Raises Unavailable."""
        self._report(run, JobRequeued(job, reason))

    def report_error(self, run: str, problem: str, *, worker: str, fatal: bool) -> None:
        """Report that this worker, or with `fatal` any worker, cannot work on the run.

        Raises Unavailable.
        """
        self._report(run, WorkerFailed(problem, worker, fatal))

    def latest_event(self, run: str) -> str:
        """The latest event's id; pass it to `events` to read newer ones. Raises Unavailable."""
        with _reported():
            answer = self._redis.xrevrange(_events(run), count=1)
        entries = cast("list[tuple[str, dict[str, str]]]", answer)
        return entries[0][0] if entries else "0"

    def events(self, run: str, after: str, wait: float) -> list[tuple[str, Event | None]]:
        """Events after the id `after`, each with its id, oldest first; None for an entry that
        cannot be read. Waits up to `wait` seconds for the first one. Raises Unavailable.
        """
        with _reported():
            answer = self._redis.xread({_events(run): after}, block=max(1, int(wait * 1000)))
        streams = cast("list[tuple[str, list[tuple[str, dict[str, str]]]]]", answer)
        found = list[tuple[str, Event | None]]()
        for event_id, fields in chain.from_iterable(entries for _, entries in streams):
            try:
                found.append((event_id, decode(fields)))
            except ValueError as error:  # the flow finds the outcome in the store, later
                log.warning("an event cannot be read", entry=event_id, reason=str(error))
                found.append((event_id, None))
        return found

    def leases(self) -> leases.Leases:
        """A worker's leases, with a heartbeat thread of their own."""
        return leases.Leases(self._redis, leases.LEASE_SECONDS)

    def leased(self, run: str, jobs: Iterable[str]) -> set[str]:
        """The jobs, of these, that a worker executes now. Raises Unavailable."""
        return leases.leased(self._redis, run, jobs)

    def cancel(self, run: str, fingerprint: str) -> None:
        """Have workers drop the queued jobs of this fingerprint of a run. Raises Unavailable."""
        with _reported():
            self._redis.set(leases.cancel_key(run, fingerprint), "1", ex=CANCEL_SECONDS)

    def reopen(self, run: str, fingerprint: str) -> None:
        """Undo `cancel`: workers execute jobs of this fingerprint again. Raises Unavailable."""
        with _reported():
            self._redis.delete(leases.cancel_key(run, fingerprint))

    def is_cancelled(self, run: str, fingerprint: str) -> bool:
        """True between `cancel` and `reopen`. Raises Unavailable."""
        with _reported():
            return bool(self._redis.exists(leases.cancel_key(run, fingerprint)))

    def workers(self) -> list[str]:
        """The names of the workers that answer within a second. Raises Unavailable."""
        with _reported():
            answers = self._app.control.ping(timeout=1.0)
        return [name for answer in answers for name in answer]

    def server(self) -> tuple[str, tuple[int, ...]] | None:
        """`redis` or `valkey`, and its version; None if the server does not say."""
        try:
            info = self._redis.info("server")
        except RedisError:  # a user of few rights may not call INFO
            return None
        kind = "valkey" if "valkey_version" in info else "redis"
        version = str(info.get(f"{kind}_version", ""))
        numbers = tuple(int(number) for number in version.split(".") if number.isdigit())
        return (kind, numbers) if numbers else None

    def places(self) -> int:
        """Total concurrency of the workers that answer within a second. Raises Unavailable."""
        with _reported():
            answers = self._app.control.inspect(timeout=1.0).stats() or {}
        return sum(int(stats["pool"]["max-concurrency"]) for stats in answers.values())

    def _report(self, run: str, event: Event) -> None:
        fields: dict[Any, Any] = {name: mask(text) for name, text in encode(event).items()}
        with _reported():
            self._redis.xadd(_events(run), fields, maxlen=EVENTS_KEPT, approximate=True)


@contextmanager
def _reported() -> Iterator[None]:
    """Raise errors of Redis and of the broker as Unavailable."""
    try:
        yield
    except (RedisError, OperationalError, BatchPublishError) as error:
        raise Unavailable(f"the queue: {error}") from error


def _events(run: str) -> str:
    return f"pressrun:{run}:events"
