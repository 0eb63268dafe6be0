"""Whether this machine's workers live, asked from outside: cheap enough to be asked every few
seconds, so neither Celery nor a model is touched.
"""

import time
from typing import Any, Literal

from redis.exceptions import RedisError

from pipeline.errors import ConfigError
from pipeline.settings import Settings
from workers.processes.heartbeat import Heartbeat
from workers.queue.connection import Address

Question = Literal["live", "ready"]

FRESH = 30.0
"""Seconds without a beat after which a supervisor counts as gone."""
REDIS_SECONDS = 3.0


def probe(settings: Settings, question: Question) -> dict[str, Any]:
    """Whether the supervisor is alive; for `ready` also whether every worker is there and hears its
    broker, and Redis answers. A live one need not be restarted; one that is not ready yet may still
    become so.
    """
    beat = Heartbeat(settings.home).read()
    age = time.monotonic() - beat.get("at", float("inf"))
    fresh = 0 <= age < FRESH
    findings = {
        "supervisor": "alive" if fresh else "PROBLEM: no sign of life from `pressrun worker`"
    }
    if question == "ready":
        findings["workers"] = _workers(beat) if fresh else "PROBLEM: unknown"
        findings["redis"] = _redis(settings)
    healthy = not any(text.startswith("PROBLEM") for text in findings.values())
    return {**findings, "healthy": healthy}


def _workers(beat: dict[str, Any]) -> str:
    count = f"{beat['alive']} of {beat['wanted']} alive"
    return count if beat["alive"] == beat["wanted"] else f"PROBLEM: {count}"


def _redis(settings: Settings) -> str:
    try:
        Address.of(settings.redis_url).client(REDIS_SECONDS).ping()
    except (RedisError, ConfigError) as error:
        return f"PROBLEM: {error}"
    return "answers"
