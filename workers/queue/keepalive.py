"""For how long a worker's broker owes it an answer."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.apps.worker import Worker


class Hearing:
    """A Celery worker's ear. Where Redis is the broker, a consumer that has room for a message asks
    for one every second.
    """

    def __init__(self, worker: "Worker", places: int) -> None:
        self._worker, self._places = worker, places

    def deaf(self, in_flight: int) -> float:
        """Seconds since it last asked; 0 while it is full or has no connection, which is for Celery
        to open anew, and for RabbitMQ, whose heartbeats Celery itself watches.
        """
        consumer = getattr(self._worker, "consumer", None)
        if in_flight >= self._places or consumer is None or consumer.connection is None:
            return 0.0
        channel = getattr(consumer.task_consumer, "channel", None)
        asked = getattr(channel, "_brpop_sent_at", None)
        return time.monotonic() - asked if asked else 0.0
