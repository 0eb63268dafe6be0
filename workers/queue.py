"""What flows and workers say to each other: job messages one way, outcome notes the other.

All of it is a hint. What counts is in the store; a lost message or note costs time only.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

from redis import Redis
from redis.exceptions import RedisError

from pipeline.errors import ConfigError, Unavailable
from pipeline.job import Outcome, Verdict
from workers.app import QUEUE, TASK, make_app

NOTES_KEPT = 10_000
CANCEL_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Note:
    """One entry of a run's stream: an outcome, or a worker's complaint that stops the run."""

    id: str
    job_id: str = ""
    verdict: Verdict | None = None
    problem: str = ""


@dataclass(frozen=True)
class Message:
    """Where a worker finds a job: the run, its edition, the part and the job's id."""

    run: str
    edition: str
    part: int
    job: str
    priority: int = 5


class Queue:
    """The Redis of a run's flow and workers."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, decode_responses=True, socket_timeout=30)
        self._app = make_app(url)

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the queue and see that it answers. Raises ConfigError or Unavailable."""
        try:
            queue = cls(url)
            queue._redis.ping()
        except ValueError as error:
            raise ConfigError(f"PRESSRUN_REDIS_URL: {error}") from error
        except RedisError as error:
            raise Unavailable(f"Redis: {error}") from error
        return queue

    def publish(self, messages: Iterable[Message]) -> None:
        """Put jobs into the queue, over one connection."""
        with self._app.producer_or_acquire() as producer:
            for message in messages:
                self._app.send_task(
                    TASK,
                    kwargs=asdict(message),
                    queue=QUEUE,
                    priority=message.priority,
                    producer=producer,
                )

    def announce(self, outcome: Outcome) -> None:
        """Tell the flow that an outcome stands in the books."""
        self._note(outcome.run, {"job": outcome.job_id, "verdict": outcome.verdict.value})

    def complain(self, run: str, problem: str) -> None:
        """Tell the flow that this worker cannot work on the run at all."""
        self._note(run, {"problem": problem})

    def latest_note(self, run: str) -> str:
        """The id after which everything still to come will stand."""
        entries = cast(
            "list[tuple[str, dict[str, str]]]", self._redis.xrevrange(_notes(run), count=1)
        )
        return entries[0][0] if entries else "0"

    def notes(self, run: str, after: str, wait: float) -> list[Note]:
        """Notes after the id `after`; waits up to `wait` seconds for the first one."""
        try:
            answer = self._redis.xread({_notes(run): after}, block=max(1, int(wait * 1000)))
        except RedisError as error:
            raise Unavailable(f"Redis: {error}") from error
        streams = cast("list[tuple[str, list[tuple[str, dict[str, str]]]]]", answer)
        return [_read_note(*entry) for _, entries in streams for entry in entries]

    def cancel(self, run: str, edition: str) -> None:
        """Have workers drop the queued jobs of this edition of a run."""
        self._redis.set(_cancelled(run, edition), "1", ex=CANCEL_SECONDS)

    def reopen(self, run: str, edition: str) -> None:
        """Take a cancellation back: the edition is worked on again."""
        self._redis.delete(_cancelled(run, edition))

    def is_cancelled(self, run: str, edition: str) -> bool:
        """Whether this edition of the run was cancelled."""
        return bool(self._redis.exists(_cancelled(run, edition)))

    def workers(self) -> list[str]:
        """The names of the workers that answer within a second."""
        answers = self._app.control.ping(timeout=1.0)
        return [name for answer in answers for name in answer]

    def _note(self, run: str, fields: dict[Any, Any]) -> None:
        self._redis.xadd(_notes(run), fields, maxlen=NOTES_KEPT, approximate=True)


def _read_note(note_id: str, fields: dict[str, str]) -> Note:
    verdict = fields.get("verdict")
    return Note(
        id=note_id,
        job_id=fields.get("job", ""),
        verdict=Verdict(verdict) if verdict else None,
        problem=fields.get("problem", ""),
    )


def _notes(run: str) -> str:
    return f"pressrun:{run}:notes"


def _cancelled(run: str, edition: str) -> str:
    return f"pressrun:{run}:{edition}:cancelled"
