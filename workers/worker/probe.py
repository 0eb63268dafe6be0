"""Liveness and readiness of this machine's workers, from another process.

Cheap enough to run every few seconds: loads neither Celery nor a model.
"""

import time
from typing import Any, Literal

from redis.exceptions import RedisError

from pipeline.errors import ConfigError
from pipeline.settings import Settings
from workers.processes.heartbeat import HeartbeatFile
from workers.queue.connection import Address

Question = Literal["live", "ready"]

FRESH = 30.0
"""Seconds without a heartbeat after which a supervisor counts as gone."""
REDIS_SECONDS = 3.0


def probe(settings: Settings, question: Question) -> dict[str, Any]:
    """Findings by name, and `healthy`. `live`: the supervisor is alive; a machine that is not has
    to be restarted. `ready`: also, every worker runs and its broker answers, and Redis answers;
    a machine that is not may still become so.
    """
    beat = HeartbeatFile(settings.home).read()
    age = time.monotonic() - beat.get("at", float("inf"))
    fresh = 0 <= age < FRESH
    findings = {
        "supervisor": "alive" if fresh else "PROBLEM: no sign of life from `pressrun worker`"
    }
    if question == "ready":
        if fresh:
            count = f"{beat['alive']} of {beat['wanted']} alive"
            complete = beat["alive"] == beat["wanted"]
            findings["workers"] = count if complete else f"PROBLEM: {count}"
        else:
            findings["workers"] = "PROBLEM: unknown"
        try:
            Address.of(settings.redis_url).client(REDIS_SECONDS).ping()
            findings["redis"] = "answers"
        except (RedisError, ConfigError) as error:
            findings["redis"] = f"PROBLEM: {error}"
    healthy = not any(text.startswith("PROBLEM") for text in findings.values())
    return {**findings, "healthy": healthy}
