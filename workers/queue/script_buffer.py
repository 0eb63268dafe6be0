"""Delayed Lua scripts for Redis: many in one request, from a thread of their own."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from redis import Redis
from redis.exceptions import RedisError

GATHER = 0.05
"""Seconds in which posted scripts gather, and so the delay of an event."""

log = structlog.get_logger(__name__)


class Script(NamedTuple):
    """A call of a Lua script."""

    script: str
    keys: Sequence[str]
    arguments: Sequence[str | int]


class ScriptBuffer:
    """Runs scripts in the order in which they were posted. Scripts that Redis does not run are
    dropped, so post only what may be lost.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._posted: list[Script] = []
        self._changed = threading.Condition()
        self._sending = 0
        threading.Thread(target=self._serve, name="script-buffer", daemon=True).start()

    def post(self, call: Script) -> None:
        """Run a script soon."""
        with self._changed:
            self._posted.append(call)
            if len(self._posted) == 1:
                self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until all posted scripts are sent, `seconds` at most."""
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
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    for script, keys, arguments in calls:
                        pipe.eval(script, len(keys), *keys, *map(str, arguments))
                    pipe.execute()
            except RedisError as error:
                log.warning(
                    "outcomes are not announced: the flow will look for them", reason=str(error)
                )
            with self._changed:
                self._sending = 0
                self._changed.notify_all()
