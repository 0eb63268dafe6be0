"""The number of a run's jobs in the queue at a time, and of shards in work."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

import structlog

from pipeline.errors import Unavailable

LEAST = 64
PER_PLACE = 3
"""Jobs for each one that workers execute at a time: one running and two waiting, so that a scaler
sees work for twice as many workers.
"""
FROM_NOBODY = 1024
"""Jobs while no worker answers: enough for a scaler to start a fleet at once."""
FEWEST_SHARDS, MOST_SHARDS = 2, 16
"""Bounds on the shards in work: one more than fill the window, because the first ones drain."""
LOOK = 10.0
LOOKS = 3
"""Looks of which the maximum counts, because a busy worker may miss one."""

log = structlog.get_logger(__name__)


def window_for(places: int | None, asked: int = 0) -> int:
    """Jobs in the queue at a time. `places` is the number that all workers together execute at a
    time, None if unknown; a nonzero `asked` overrides it.
    """
    if asked:
        return asked
    if places == 0:
        return FROM_NOBODY
    return max(LEAST, PER_PLACE * (places or 0))


def shards_for(window: int, shard: int) -> int:
    """The number of shards, each of `shard` jobs, to have in work at a time."""
    return min(MOST_SHARDS, max(FEWEST_SHARDS, -(-window // shard) + 1))


class Window:
    """The window of a run; it follows the number of workers while the block runs."""

    def __init__(self, places: Callable[[], int], shard: int, asked: int = 0) -> None:
        self._places, self._shard, self._asked = places, max(1, shard), asked
        self._seen = deque[int](maxlen=LOOKS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="window", daemon=True)

    def __enter__(self) -> Self:
        if not self._asked:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @property
    def size(self) -> int:
        """Jobs in flight in all shards together."""
        return window_for(max(self._seen, default=None), self._asked)

    @property
    def shards(self) -> int:
        """Shards in work, as long as each has jobs for its part of the window."""
        return shards_for(self.size, self._shard)

    def of_shard(self) -> int:
        """Jobs in flight in each shard in work, at most."""
        return self.size // self.shards

    def has_room(self, jobs: int, others: Sequence[int]) -> bool:
        """True where a shard with so many jobs may be in work beside others with theirs: one with
        few of them, as where they are the rows of one model, does not fill its part of the window.
        """
        part = max(1, self.of_shard())
        taken = sum(min(part, each) for each in (*others, jobs))
        return not others or (len(others) < MOST_SHARDS and taken <= self.size)

    def look(self) -> None:
        """Read the number of jobs that the workers execute at a time."""
        before = self.size
        try:
            self._seen.append(self._places())
        except Unavailable:
            return  # the last known number stays
        if self.size != before:
            log.info("the window follows the workers", jobs=self.size, shards=self.shards)

    def _follow(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(LOOK)
