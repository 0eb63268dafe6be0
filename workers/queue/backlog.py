"""The queue's backlog, read from Redis at each scrape."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from pipeline.settings import Settings
from workers.queue.celery_app import PRIORITIES, UNACKNOWLEDGED, list_of
from workers.queue.connection import Address

SENT = "sent"
"""Header of a message: the time it was sent, in seconds of the sender's clock."""
REDIS_SECONDS = 2.0
"""Prometheus waits for no scrape longer than ten."""

log = structlog.get_logger(__name__)


class Waiting(NamedTuple):
    """The messages of one priority that no worker has taken; the oldest one's age in seconds."""

    priority: int
    messages: int
    age: float


class Backlog(Collector):
    """Metrics of the queue, if Redis is the broker; the same in every process."""

    def __init__(self, redis: "Redis", *, broker: bool) -> None:
        self._redis, self._broker = redis, broker

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The backlog in the settings' Redis; RabbitMQ exports its queues' metrics itself."""
        return cls(
            Address.of(settings.redis_url).client(REDIS_SECONDS), broker=not settings.broker_url
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, with Redis' state and, if it answers, its figures."""
        up, messages, age, taken = self.describe()
        try:
            waiting = waiting_messages(self._redis) if self._broker else []
            unacknowledged = self._redis.hlen(UNACKNOWLEDGED)
        except RedisError as error:
            log.warning("Redis tells nothing of the queue", reason=str(error))
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
            for each in waiting:
                messages.add_metric([str(each.priority)], each.messages)
            if self._broker:
                age.add_metric([], max(each.age for each in waiting))
                taken.add_metric([], float(unacknowledged))
        yield from (up, messages, age, taken)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families, empty."""
        return (
            GaugeMetricFamily("pressrun_redis_up", "Whether Redis answers this process."),
            GaugeMetricFamily(
                "pressrun_queue_messages",
                "Messages that no worker has taken; priority 0 goes first.",
                labels=["priority"],
            ),
            GaugeMetricFamily(
                "pressrun_queue_oldest_age_seconds", "Age of the oldest of them; 0 without one."
            ),
            GaugeMetricFamily(
                "pressrun_queue_unacknowledged_messages", "Messages that workers have taken."
            ),
        )


def waiting_messages(redis: "Redis") -> list[Waiting]:
    """The messages that no worker has taken, by priority. Raises RedisError."""
    with redis.pipeline(transaction=False) as pipe:
        for priority in range(PRIORITIES):
            pipe.llen(list_of(priority))
            pipe.lindex(list_of(priority), -1)  # the oldest
        answers: list[Any] = pipe.execute()
    found = []
    for priority, (length, oldest) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        sent = json.loads(oldest)["headers"].get(SENT) if oldest else None
        found.append(Waiting(priority, length, max(0.0, time.time() - sent) if sent else 0.0))
    return found
