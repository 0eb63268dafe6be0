"""What flows and workers say to each other: job messages one way, outcome notes the other.

All of it is a hint. What counts is in the store; a lost message or note costs time only.
"""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import structlog
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import RedisError

from pipeline.errors import Unavailable
from pipeline.job import Outcome, Status
from pipeline.masking import mask
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
class Event:
    """One entry of a run's stream.

    A job's `status` and the `device_seconds` that it cost; or why it went back, as `retry`; or why
    a worker stops working on the run, as `problem`, which is `fatal` where no other one could do
    better.
    """

    id: str
    job_id: str = ""
    status: Status | None = None
    device_seconds: float = 0.0
    retry: str = ""
    problem: str = ""
    worker: str = ""
    fatal: bool = False


@dataclass(frozen=True)
class Message:
    """Where a worker finds a job: the run, its fingerprint, the shard and the job's id; and the id
    of the store that all of it is in, where the sender knows it.
    """

    run: str
    fingerprint: str
    shard: int
    job: str
    priority: int = 5
    store: str = ""


class Queue:
    """The Redis of a run's flow and workers, and the broker where that is another server."""

    def __init__(self, url: str, broker_url: str = "") -> None:
        self._redis = Address.of(url).client()
        self._app = make_app(url, broker_url)

    @classmethod
    def connect(cls, url: str, broker_url: str = "") -> Self:
        """Open the queue and see that Redis answers. Raises ConfigError or Unavailable."""
        queue = cls(url, broker_url)
        try:
            queue._redis.ping()
        except RedisError as error:
            raise Unavailable(f"Redis: {error}") from error
        return queue

    def publish(self, messages: Iterable[Message]) -> None:
        """Put jobs into the queue, many in one request. Raises Unavailable; some may be in then."""
        carried = tracing.carried()
        with _reported(), self._app.producer_or_acquire() as producer, producer.batch(TOGETHER):
            for message in messages:
                self._app.send_task(
                    TASK,
                    kwargs=asdict(message),
                    queue=QUEUE,
                    priority=message.priority,
                    headers={SENT: time.time(), **carried},
                    producer=producer,
                )

    def publish_result(self, outcome: Outcome, lease: leases.Lease | None = None) -> None:
        """Tell the flow that an outcome stands in the books; with the `lease` of its job, which
        ends in the same step, it is told a little later.
        """
        cost = outcome.device_time
        event = {
            "job": outcome.job_id,
            "status": outcome.status.value,
            "device_seconds": f"{cost:.6g}",
        }
        if lease:
            lease.leases.end_soon(lease, leases.Entry(_events(outcome.run), EVENTS_KEPT, event))
        else:
            self._note(outcome.run, event)

    def requeue(self, run: str, job: str, reason: str) -> None:
        """Tell the flow that a job is free again, to be sent once more."""
        self._note(run, {"job": job, "retry": reason})

    def report_error(self, run: str, problem: str, *, worker: str, fatal: bool) -> None:
        """Tell the flow that this worker, or with `fatal` any worker, cannot work on the run."""
        self._note(run, {"problem": problem, "worker": worker, "fatal": str(int(fatal))})

    def latest_event(self, run: str) -> str:
        """The id after which everything still to come will stand. Raises Unavailable."""
        with _reported():
            answer = self._redis.xrevrange(_events(run), count=1)
        entries = cast("list[tuple[str, dict[str, str]]]", answer)
        return entries[0][0] if entries else "0"

    def events(self, run: str, after: str, wait: float) -> list[Event]:
        """Notes after the id `after`; waits up to `wait` seconds for the first one.

        Raises Unavailable.
        """
        with _reported():
            answer = self._redis.xread({_events(run): after}, block=max(1, int(wait * 1000)))
        streams = cast("list[tuple[str, list[tuple[str, dict[str, str]]]]]", answer)
        return [_read_note(*entry) for _, entries in streams for entry in entries]

    def leases(self) -> leases.Leases:
        """The leases of a worker that begins now."""
        return leases.Leases(self._redis, leases.LEASE_SECONDS)

    def leased(self, run: str, jobs: Iterable[str]) -> set[str]:
        """Which of the jobs a worker has in hand. Raises Unavailable."""
        return leases.leased(self._redis, run, jobs)

    def cancel(self, run: str, fingerprint: str) -> None:
        """Have workers drop the queued jobs of this fingerprint of a run. Raises Unavailable."""
        with _reported():
            self._redis.set(leases.cancel_key(run, fingerprint), "1", ex=CANCEL_SECONDS)

    def reopen(self, run: str, fingerprint: str) -> None:
        """Take a cancellation back: the fingerprint is worked on again. Raises Unavailable."""
        with _reported():
            self._redis.delete(leases.cancel_key(run, fingerprint))

    def is_cancelled(self, run: str, fingerprint: str) -> bool:
        """Whether the fingerprint was cancelled and not taken up again. Raises Unavailable."""
        with _reported():
            return bool(self._redis.exists(leases.cancel_key(run, fingerprint)))

    def workers(self) -> list[str]:
        """The names of the workers that answer within a second. Raises Unavailable."""
        with _reported():
            answers = self._app.control.ping(timeout=1.0)
        return [name for answer in answers for name in answer]

    def server(self) -> tuple[str, tuple[int, ...]] | None:
        """Whether Redis is `redis` or `valkey`, and its version; None where it does not tell."""
        try:
            told = self._redis.info("server")
        except RedisError:  # a user of few rights may not ask
            return None
        kind = "valkey" if "valkey_version" in told else "redis"
        version = str(told.get(f"{kind}_version", ""))
        numbers = tuple(int(number) for number in version.split(".") if number.isdigit())
        return (kind, numbers) if numbers else None

    def places(self) -> int:
        """Jobs that the workers that answer within a second execute at a time, all together.

        Raises Unavailable.
        """
        with _reported():
            answers = self._app.control.inspect(timeout=1.0).stats() or {}
        return sum(int(stats["pool"]["max-concurrency"]) for stats in answers.values())

    def _note(self, run: str, fields: dict[Any, Any]) -> None:
        told: dict[Any, Any] = {name: mask(value) for name, value in fields.items()}
        with _reported():
            self._redis.xadd(_events(run), told, maxlen=EVENTS_KEPT, approximate=True)


@contextmanager
def _reported() -> Iterator[None]:
    """Errors of Redis and of the broker as Unavailable."""
    try:
        yield
    except (RedisError, OperationalError, BatchPublishError) as error:
        raise Unavailable(f"the queue: {error}") from error


def _read_note(note_id: str, fields: dict[str, str]) -> Event:
    """A note; one that cannot be read tells nothing, and the store is asked in time."""
    try:
        status = fields.get("status")
        return Event(
            id=note_id,
            job_id=fields.get("job", ""),
            status=Status(status) if status else None,
            device_seconds=_seconds(fields.get("device_seconds", "0")),
            retry=fields.get("retry", ""),
            problem=fields.get("problem", ""),
            worker=fields.get("worker", ""),
            fatal=fields.get("fatal") == "1",
        )
    except ValueError as error:
        log.warning("a note cannot be read", event=note_id, reason=str(error))
        return Event(note_id)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text} is no time")
    return seconds


def _events(run: str) -> str:
    return f"pressrun:{run}:events"
