"""How many jobs of a run are in the queue at a time, and in how many shards."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Self

import structlog

from pipeline.errors import Unavailable

LEAST = 64
PER_PLACE = 3
"""Jobs for each that workers execute at a time: one in work and two that wait, by which a scaler
sees that twice as many workers would have work.
"""
FROM_NOBODY = 1024
"""Jobs while no worker answers: as many as let a scaler call for a fleet at once."""
FEWEST_SHARDS, MOST_SHARDS = 2, 16
"""In work at a time: one more than fill the window, which drain."""
LOOK = 10.0
LOOKS = 3
"""Looks of which the best one counts: a busy worker may miss one."""

log = structlog.get_logger(__name__)


def window_for(places: int | None, asked: int = 0) -> int:
    """Jobs in the queue at a time, for workers that execute `places` at a time together; None: not
    known yet. What was `asked` for stands, 0 is nothing.
    """
    if asked:
        return asked
    if places == 0:
        return FROM_NOBODY
    return max(LEAST, PER_PLACE * (places or 0))


def shards_for(window: int, shard: int) -> int:
    """Shards of `shard` jobs that are to be in work at a time."""
    return min(MOST_SHARDS, max(FEWEST_SHARDS, -(-window // shard) + 1))


class Window:
    """The window of a run, which follows the workers while the block runs."""

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
        """Jobs in flight, of all shards together."""
        return window_for(max(self._seen, default=None), self._asked)

    @property
    def shards(self) -> int:
        """Shards in work."""
        return shards_for(self.size, self._shard)

    def of_shard(self) -> int:
        """Jobs in flight of each shard in work."""
        return self.size // self.shards

    def look(self) -> None:
        """See how many jobs the workers execute at a time."""
        before = self.size
        try:
            self._seen.append(self._places())
        except Unavailable:
            return  # what was seen last may still be so
        if self.size != before:
            log.info("the window follows the workers", jobs=self.size, shards=self.shards)

    def _follow(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(LOOK)
