"""One worker process: Celery's threads pool around one device."""

import logging
import socket
import threading
import uuid

from pipeline.errors import ConfigError
from pipeline.settings import Settings
from workers.app import QUEUE, make_app
from workers.runtime import Runtime
from workers.tasks import register


def serve(settings: Settings) -> None:
    """Work until SIGTERM or Ctrl-C; jobs in flight are finished first.

    Threads, because their calls meet in the batchers that keep the device full.
    """
    if not settings.redis_url:
        raise ConfigError("PRESSRUN_REDIS_URL is not set: a worker needs the run's Redis.")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    app = make_app(settings.redis_url)
    runtime = Runtime(settings)
    register(app, runtime)
    threading.Thread(target=runtime.warm_up, args=(settings.chosen_profile,), daemon=True).start()
    worker = app.Worker(
        pool="threads",
        concurrency=settings.concurrency,
        queues=[QUEUE],
        hostname=f"pressrun-{uuid.uuid4().hex[:8]}@{socket.gethostname()}",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    raise SystemExit(worker.exitcode)
