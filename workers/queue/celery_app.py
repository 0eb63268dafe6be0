"""Celery and kombu: the application, and our Redis transport for a worker.

One queue, late acknowledgement, JSON only, no results kept.
"""

import time
from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES, redis, virtual

from workers.queue.connection import ANSWER, OPENING, Address

if TYPE_CHECKING:
    from celery.apps.worker import Worker

QUEUE = "pressrun"
PREFIX = "pressrun:"
"""Begins every key and channel in Redis, ours and Celery's: others may share the database."""
TASK = "pressrun.generate"
PRIORITIES = 10
SEPARATOR = ":"
"""Between the queue's name and a priority: each is a list of its own, which scalers watch."""
UNACKNOWLEDGED = PREFIX + redis.Channel.unacked_key
"""The Redis hash of the messages that workers have taken."""


# A message that a dead worker held is delivered again once `visibility_timeout` has passed; kombu
# looks for such messages every second instead of at its default of minutes. A connection that is
# half-open is noticed after twice `health_check_interval` where it waits for messages, else after
# `socket_timeout`.
_TRANSPORT: dict[str, Any] = {
    "global_keyprefix": PREFIX,
    "health_check_interval": 5,
    "socket_connect_timeout": OPENING,
    "socket_timeout": ANSWER,
    "visibility_timeout": 900,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    "priority_steps": list(range(PRIORITIES)),
    "sep": SEPARATOR,
    "queue_order_strategy": "priority",
}
# A quorum queue outlives the loss of a node; it knows no ten priorities.
_RABBITMQ: dict[str, Any] = {
    "broker_heartbeat": 20,
    "control_exchange": QUEUE,
    "event_exchange": f"{QUEUE}.events",
    "task_default_queue_type": "quorum",
    "broker_transport_options": {"confirm_publish": True},
}


def list_of(priority: int) -> str:
    """The Redis list that holds the messages of a priority, 0 to 9; 0 goes first."""
    return PREFIX + (f"{QUEUE}{SEPARATOR}{priority}" if priority else QUEUE)


def make_app(redis_url: str, broker_url: str = "") -> Celery:
    """A Celery application on the broker at `broker_url` (amqp:// or amqps://), or without one on
    the Redis at `redis_url` (redis://, rediss:// or unix://). Raises ConfigError.
    """
    address = Address.of(redis_url)
    # no retry_on_timeout: redis-py would reconnect behind the event loop's back
    on_redis = {"broker_transport_options": {**_TRANSPORT, **address.options}}
    app = Celery("pressrun", broker=broker_url or address.for_kombu)
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,  # tracebacks whole, not a log line for each of theirs
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_connection_retry_on_startup=True,
        **(_RABBITMQ if broker_url else on_redis),
    )
    return app


class QoS(redis.QoS):
    """The messages that a consumer has taken and not acknowledged."""

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge a message. Its place is free even if Redis cannot be reached: the message is
        then delivered again later, and finds its job's outcome.
        """
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        finally:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """A channel with these acknowledgements."""

    QoS = QoS


class Transport(redis.Transport):
    """kombu's Redis transport, with acknowledgements that never take up a place for good."""

    Channel = Channel


def install_transport() -> None:
    """Have kombu use `Transport` in this process, under kombu's own names: a URL's scheme is the
    only place for a name.
    """
    for name in ("redis", "rediss"):
        TRANSPORT_ALIASES[name] = f"{__name__}:Transport"


class BrokerWatch:
    """Measures for how long the broker has owed a Celery worker an answer.

    A consumer with room for a message asks a Redis broker for one every second.
    """

    def __init__(self, worker: "Worker", concurrency: int) -> None:
        self._worker, self._concurrency = worker, concurrency

    def silence(self, in_flight: int) -> float:
        """Seconds since the consumer sent its request; 0 if it has no room for a message, has no
        connection (Celery opens a new one) or uses RabbitMQ (Celery watches the heartbeats).
        """
        consumer = getattr(self._worker, "consumer", None)
        if in_flight >= self._concurrency or consumer is None or consumer.connection is None:
            return 0.0
        channel = getattr(consumer.task_consumer, "channel", None)
        asked = getattr(channel, "_brpop_sent_at", None)
        return time.monotonic() - asked if asked else 0.0
