"""The Celery application: one queue, late acknowledgement, JSON only, no results kept."""

from celery import Celery

QUEUE = "pressrun"
TASK = "pressrun.generate"
PRIORITIES = 10


def make_app(redis_url: str) -> Celery:
    """A Celery application on the Redis at `redis_url` (redis://, rediss:// or unix://).

    A message that a dead worker held is delivered again once `visibility_timeout` has passed;
    kombu looks for such messages every second instead of at its default of minutes.
    """
    app = Celery("pressrun", broker=_broker_url(redis_url))
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
        broker_transport_options={
            "visibility_timeout": 900,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "priority_steps": list(range(PRIORITIES)),
            "queue_order_strategy": "priority",
        },
    )
    return app


def _broker_url(redis_url: str) -> str:
    return redis_url.replace("unix://", "redis+socket://", 1)
