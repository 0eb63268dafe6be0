"""Takes jobs in hand back when their run is cancelled and they do not end by themselves soon."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import structlog

from pipeline.errors import Unavailable
from pipeline.withdrawal import withdrawable
from workers.queue import Queue

LOOK = 1.0
PATIENCE = 2.0
"""Seconds in which the jobs of a cancelled run may still end."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Hand:
    """An execution of a job of this fingerprint of a run; `since` when it is known as cancelled."""

    run: str
    fingerprint: str
    asked_back: threading.Event = field(default_factory=threading.Event)
    since: float | None = None


class Recalls:
    """The executions in hand; Redis is asked about their runs once a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._hands = queue, set[Hand]()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="recalls", daemon=True).start()

    @contextmanager
    def watched(self, run: str, fingerprint: str) -> Iterator[None]:
        """The execution inside, in this thread, may end as Withdrawn."""
        hand = Hand(run, fingerprint)
        with self._lock:
            self._hands.add(hand)
        try:
            with withdrawable(hand.asked_back):
                yield
        finally:
            with self._lock:
                self._hands.discard(hand)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK):
            with self._lock:
                hands = list(self._hands)
            try:
                self._look(hands)
            except Unavailable as error:
                log.warning("nobody tells whether runs are cancelled", reason=str(error))

    def _look(self, hands: list[Hand]) -> None:
        cancelled = {
            key: self._queue.is_cancelled(*key) for key in {(h.run, h.fingerprint) for h in hands}
        }
        for hand in hands:
            if not cancelled[hand.run, hand.fingerprint]:
                hand.since = None
                continue
            hand.since = hand.since or monotonic()
            if monotonic() - hand.since >= PATIENCE:
                hand.asked_back.set()
