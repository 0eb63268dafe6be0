"""The Celery application: one queue, late acknowledgement, JSON only, no results kept."""

from typing import Any

from celery import Celery
from kombu.transport.redis import Channel

from workers.queue.connection import ANSWER, OPENING, Address

QUEUE = "pressrun"
PREFIX = "pressrun:"
"""Begins every key and channel in Redis, ours and Celery's: others may share the database."""
TASK = "pressrun.generate"
PRIORITIES = 10
SEPARATOR = ":"
"""Between the queue's name and a priority: each is a list of its own, which scalers watch."""


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


UNACKNOWLEDGED = PREFIX + Channel.unacked_key
"""The Redis hash of the messages that workers have taken."""


def make_app(redis_url: str, broker_url: str = "") -> Celery:
    """A Celery application on the broker at `broker_url` (amqp:// or amqps://), or without one on
    the Redis at `redis_url` (redis://, rediss:// or unix://). Raises ConfigError.
    """
    address = Address.of(redis_url)
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
        **(_RABBITMQ if broker_url else _redis(address)),
    )
    return app


def _redis(address: Address) -> dict[str, Any]:
    # no retry_on_timeout: redis-py would open a connection anew behind the event loop's back
    return {"broker_transport_options": {**_TRANSPORT, **address.options}}
