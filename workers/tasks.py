"""The one Celery task: one message, one job."""

from typing import Any

from celery import Celery

from workers.app import TASK
from workers.queue import Message
from workers.runtime import Runtime


def register(app: Celery, runtime: Runtime) -> None:
    """Give the application its task, bound to this process's runtime.

    Celery tries nothing again by itself: when a job is sent again is the flow's affair.
    """

    def generate(**fields: Any) -> None:
        """Execute one job."""
        runtime.execute(Message(**fields))

    app.task(generate, name=TASK, shared=False)
