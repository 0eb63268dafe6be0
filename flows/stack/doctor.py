"""The doctor: a check of every service that the settings name."""

import platform
from collections.abc import Callable
from typing import Any

from flows.stack.embedded import require_prefect
from flows.stack.redis_server import described, private_server
from pipeline.assemble import model_digests, open_knowledge, open_store_to_commit, reach_store
from pipeline.errors import PressrunError
from pipeline.job import version
from pipeline.models import Models
from pipeline.retrieval.versions import names
from pipeline.settings import Settings
from workers.queue.messages import Queue
from workers.worker.devices import require_device

PROBE = "doctor-probe"


def examine(settings: Settings) -> dict[str, Any]:
    """One line for each part: its description, or the problem and its remedy."""
    parts: dict[str, Callable[[], str]] = {
        "pressrun": lambda: f"{version()} on Python {platform.python_version()}",
        "profile": lambda: settings.chosen_profile.name,
        "models": lambda: (
            ", ".join(
                f"{role} {digest[:8]}"
                for role, digest in model_digests(settings, settings.chosen_profile).items()
            )
            or "none needed"
        ),
        "device": lambda: _device(settings),
        "store": lambda: _store(settings),
        "redis": lambda: _redis(settings),
        "workers": lambda: _workers(settings),
        "prefect": lambda: require_prefect() or "one is started with each run",
        "knowledge": lambda: ", ".join(names(open_knowledge(settings))) or "no collections yet",
    }
    findings = dict[str, str]()
    for name, part in parts.items():
        try:
            findings[name] = part()
        except PressrunError as error:
            findings[name] = f"PROBLEM: {error}"
    healthy = not any(text.startswith("PROBLEM") for text in findings.values())
    return {**findings, "healthy": healthy}


def _device(settings: Settings) -> str:
    require_device(settings.device)
    return Models(settings.models, settings.device).device


def _store(settings: Settings) -> str:
    reach_store(settings)
    store = open_store_to_commit(settings)
    store.put(PROBE, b"pressrun", content_type="text/plain")
    store.delete(PROBE)
    single = "" if store.conditional else ", leases keep records single: it lets writers overwrite"
    return f"{settings.store}, writable{single}"


def _redis(settings: Settings) -> str:
    if not settings.redis_url:
        return private_server()
    server = Queue.connect(settings.redis_url, settings.broker_url).server()
    return f"answers, {described(*server)}" if server else "answers"


def _workers(settings: Settings) -> str:
    if not settings.redis_url:
        return "one is started with each run"
    names = Queue.connect(settings.redis_url, settings.broker_url).workers()
    return ", ".join(names) or "none listens: one is started with each run"
