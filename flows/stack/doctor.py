"""The doctor: a check of every service of the settings, and a probe of this machine's workers."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import RedisError

from pipeline.errors import ConfigError, ModelError, PressrunError
from pipeline.record import version
from pipeline.settings import Settings
from workers.processes.heartbeat import HeartbeatFile
from workers.queue.connection import Address
from workers.worker.devices import require_device

if TYPE_CHECKING:
    from pipeline.profile import Dtype, JudgeProfile, Profile, RetrievalProfile

STORED = "doctor-probe"
WITH_EACH_RUN = "one is started with each run"
FRESH = 30.0
"""Seconds without a heartbeat after which a supervisor counts as gone."""
REDIS_SECONDS = 3.0
"""Seconds for Redis to answer a probe."""


class Findings(dict[str, str]):
    """Parts and the findings on them."""

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """A block that examines this part: its PressrunError becomes the finding."""
        try:
            yield
        except PressrunError as error:
            self[part] = f"PROBLEM: {error}"

    def report(self) -> dict[str, Any]:
        """The findings, and `healthy` if none is a problem."""
        healthy = not any(text.startswith("PROBLEM") for text in self.values())
        return {**self, "healthy": healthy}


def probe(settings: Settings, question: Literal["live", "ready"]) -> dict[str, Any]:
    """The health of this machine's workers, seen from another process. `live`: the supervisor is
    alive; a machine that is not has to be restarted. `ready`: also, every worker runs and its
    broker answers, and Redis answers; a machine that is not may still become so.
    """
    findings = Findings()
    beat = HeartbeatFile(settings.home).read()
    age = time.monotonic() - beat.get("at", float("inf"))
    fresh = 0 <= age < FRESH
    findings["supervisor"] = "alive" if fresh else "PROBLEM: no sign of life from `pressrun worker`"
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
    return findings.report()


def memory_needed(settings: Settings) -> str:
    """The memory that the weights of the profile's largest renderer, and of all other models, take
    on the device, and what it has. Raises ModelError where they do not fit.
    """
    from pipeline.models import Models
    from pipeline.profile import DiffusersProfile

    profile, models = settings.chosen_profile, Models(settings.models, settings.device)
    sections = {"renderer": profile.renderer} | {
        f"renderers.{name}": each for name, each in profile.renderers.items()
    }
    own = {name: each for name, each in sections.items() if isinstance(each, DiffusersProfile)}
    sizes = {name: models.nbytes(each) for name, each in own.items()}
    largest = max(sizes, key=sizes.__getitem__, default="renderer")
    others = sum(models.size(*each) for each in _others(profile)) / 1e9
    most, total = sizes.get(largest, 0) / 1e9, models.memory() / 1e9
    whose = (
        f"the weights of {largest}, the largest renderer,"
        if len(own) > 1
        else "the renderer's weights"
    )
    renderers = f"{whose} take {most:.1f} GB" if own else "no renderer on this device"
    told = f"{renderers}, all other models' {others:.1f} GB, and the device has {total:.1f} GB"
    if offloaded := [name for name, each in own.items() if models.offloaded(each)]:
        told += f"; layers of {', '.join(offloaded)} lie in the host's memory"
    if most + others > total:
        raise ModelError(f"{told}: see {largest}.memory, or take a smaller model")
    return told


def _others(profile: "Profile") -> set[tuple[str, str, "Dtype"]]:
    """Reference, role and precision of each model beside the renderers'; a shared one once."""
    from pipeline.assemble.guards import clip_of
    from pipeline.profile import ClassifierGuardProfile, ConceptGuardProfile, LocalWriterProfile

    roles = dict[tuple[str, "Dtype"], str]()
    if isinstance(profile.writer, LocalWriterProfile):
        roles[profile.writer.model, profile.writer.dtype] = "writer"
    owners: list[JudgeProfile | RetrievalProfile] = [*profile.judge, profile.retrieval]
    for owner in owners:
        for role, reference in owner.models().items():
            roles.setdefault((reference, getattr(owner, "dtype", "float32")), role)
    for guard in profile.guard:
        if isinstance(guard, ConceptGuardProfile):
            clip = clip_of(guard, profile.clip)
            roles.setdefault((clip.model, clip.dtype), "concept")
        elif isinstance(guard, ClassifierGuardProfile):
            roles[guard.model, guard.dtype] = "guard"
    return {(reference, role, dtype) for (reference, dtype), role in roles.items()}


def examine(settings: Settings) -> dict[str, Any]:
    """One line for each part: its description, or the problem and its remedy."""
    # heavy: a probe, which comes every few seconds, does without Celery and models
    from flows.stack.embedded import require_prefect
    from flows.stack.redis_server import described, private_server
    from pipeline.assemble.jobs import open_weights, weights_state
    from pipeline.assemble.knowledge import open_knowledge
    from pipeline.assemble.models import model_digests, model_remarks
    from pipeline.assemble.stores import open_store_to_commit, reach_store
    from pipeline.models import Models
    from pipeline.retrieval.versions import names
    from workers.queue.messages import Queue

    findings = Findings(pressrun=f"{version()} on Python {platform.python_version()}")
    with findings.of("profile"):
        findings["profile"] = settings.chosen_profile.name
    with findings.of("models"):
        digests = model_digests(settings, settings.chosen_profile).items()
        shown = ", ".join(f"{role} {digest[:8]}" for role, digest in digests)
        said = model_remarks(settings, settings.chosen_profile)
        findings["models"] = "; ".join([shown or "none needed", *said])
    with findings.of("weights"):
        folders = open_weights(settings, settings.chosen_profile)
        weights_state(folders)
        counted = [
            f"{len(folder.names())} in {f'renderers.{name}' if name else 'renderer'}.{column}"
            for name, by_column in folders.items()
            for column, folder in by_column.items()
        ]
        findings["weights"] = ", ".join(counted) or "no folder of LoRAs or embeddings is named"
    with findings.of("device"):
        require_device(settings.device)
        findings["device"] = Models(settings.models, settings.device).device
    with findings.of("memory"):
        if not any(findings[part].startswith("PROBLEM") for part in ("models", "device")):
            findings["memory"] = memory_needed(settings)
    with findings.of("store"):
        reach_store(settings)
        store = open_store_to_commit(settings)
        store.put(STORED, b"pressrun", content_type="text/plain")
        store.delete(STORED)
        findings["store"] = f"{settings.store}, writable"
        if not store.conditional:
            findings["store"] += ", leases keep records single: it lets writers overwrite"
    with findings.of("redis"):
        if settings.redis_url:
            server = Queue.connect(settings.redis_url, settings.broker_url).server()
            findings["redis"] = f"answers, {described(*server)}" if server else "answers"
        else:
            findings["redis"] = private_server()
    with findings.of("workers"):
        if settings.redis_url:
            workers = Queue.connect(settings.redis_url, settings.broker_url).workers()
            findings["workers"] = ", ".join(workers) or f"none listens: {WITH_EACH_RUN}"
        else:
            findings["workers"] = WITH_EACH_RUN
    with findings.of("prefect"):
        findings["prefect"] = require_prefect() or WITH_EACH_RUN
    with findings.of("knowledge"):
        findings["knowledge"] = ", ".join(names(open_knowledge(settings))) or "no collections yet"
    return findings.report()
