"""What Redis may be told a little later: many scripts in one request, from their own thread."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from redis import Redis
from redis.exceptions import RedisError

GATHER = 0.05
"""Seconds in which what is posted gathers: a flow hears notes no more often."""

log = structlog.get_logger(__name__)


class Script(NamedTuple):
    """A Lua script and what it is about."""

    script: str
    keys: Sequence[str]
    arguments: Sequence[str | int]


class ScriptBuffer:
    """Runs scripts in the order in which they were posted. Those that cannot be run are given up:
    only what may be lost belongs here.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._posted: list[Script] = []
        self._changed = threading.Condition()
        self._sending = 0
        threading.Thread(target=self._serve, name="outbox", daemon=True).start()

    def post(self, call: Script) -> None:
        """Have a script run soon."""
        with self._changed:
            self._posted.append(call)
            if len(self._posted) == 1:
                self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until all that was posted has gone, or for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._posted and not self._sending, seconds)

    def _serve(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._posted)
            pause.wait(GATHER)
            with self._changed:
                calls, self._posted = self._posted, []
                self._sending = len(calls)
            self._send(calls)
            with self._changed:
                self._sending = 0
                self._changed.notify_all()

    def _send(self, calls: Sequence[Script]) -> None:
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for call in calls:
                    pipe.eval(call.script, len(call.keys), *call.keys, *map(str, call.arguments))
                pipe.execute()
        except RedisError as error:
            log.warning(
                "outcomes are not announced: the flow will look for them", reason=str(error)
            )
