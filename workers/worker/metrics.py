"""The figures of one worker process, for Prometheus; docs/monitoring.md says what each means.

No label takes values that grow with the work: every value is a series that Prometheus keeps, so a
million jobs must not make more of them than ten. Jobs and runs are in the records, logs and traces.
"""

import time
from collections import Counter as Counted
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from pipeline.job import CandidateRecord, Outcome, Status, version
from pipeline.settings import Settings
from pipeline.telemetry import Observer
from pipeline.watchdog import seconds_since_beat
from workers.worker.device_memory import DeviceMemory

STAGES = ("retrieve", "write", "render", "judge", "commit")
ROLES = ("writer", "renderer", "judge")
FATES = ("valid", "invalid", "dropped")
REASONS = ("unavailable", "store", "unhealthy", "error", "stopping")
"""Why a job goes back."""

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_WAITS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
_EIGHTHS = tuple(n / 8 for n in range(1, 9))


class WorkerMetrics(Observer):
    """Counts what the process does; `ages` answers the seconds for which each lease is held."""

    def __init__(self, settings: Settings, ages: Callable[[], Sequence[float]]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(DeviceMemory(settings.device))

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, value: Callable[[], float]) -> None:
            Gauge(name, meaning, registry=registry).set_function(value)

        def histogram(name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, meaning, labels, registry=registry, buckets=buckets)

        self._jobs = counter(
            "pressrun_jobs", "Outcomes that this worker committed, by status.", "status"
        )
        self._candidates = counter(
            "pressrun_candidates",
            "Candidates of those outcomes: valid, invalid, or dropped during their render.",
            "fate",
        )
        self._back = counter(
            "pressrun_handbacks",
            "Jobs that the worker gave back without an outcome, by what was wrong.",
            "reason",
        )
        self._device = counter(
            "pressrun_device_seconds",
            "Time of model calls on the device for those outcomes, by the model's role.",
            "role",
        )
        self._texts = counter(
            "pressrun_text_cache",
            "Texts that a model was to read: known (hit) or read anew (miss).",
            "role",
            "result",
        )
        self._errors = counter(
            "pressrun_service_errors",
            "Tries that the store or Qdrant refused or did not answer, by status or error.",
            "service", "kind",
        )  # fmt: skip
        self._ports = histogram(
            "pressrun_stage_seconds",
            "Time of a job in each stage, waiting for its turn included.",
            _SECONDS,
            "stage",
        )
        self._batches = histogram(
            "pressrun_batch_occupancy_ratio",
            "Filled part of each batch, of the engine's each step.",
            _EIGHTHS,
            "role",
        )
        self._waits = histogram(
            "pressrun_queue_wait_seconds",
            "Time from the sending of a message to the beginning of its job.",
            _WAITS,
        )
        self._working = Gauge(
            "pressrun_jobs_in_work", "Jobs that the worker executes now.", registry=registry
        )
        gauge("pressrun_leases", "Leases that the worker holds.", lambda: len(ages()))
        gauge(
            "pressrun_lease_oldest_age_seconds", "Age of the oldest of them; 0 without one.",
            lambda: max(ages(), default=0.0),
        )  # fmt: skip
        gauge(
            "pressrun_quiet_seconds",
            "Time since the worker last took a step or was idle.",
            seconds_since_beat,
        )
        gauge(
            "pressrun_concurrency",
            "Jobs that the worker executes at a time at most.",
            lambda: settings.concurrency,
        )
        Info(
            "pressrun_worker", "The worker's device and version; always 1.", registry=registry
        ).info({"device": settings.device, "version": version()})
        self._begin_at_zero()

    def working(self) -> AbstractContextManager[object]:
        """Around the execution of a job."""
        return self._working.track_inprogress()

    def committing(self) -> AbstractContextManager[object]:
        """Around the writing of a job's image and record."""
        return self._ports.labels("commit").time()

    def begun(self, sent: float | None) -> None:
        """A message has come that was sent at this time, by the sender's clock."""
        if sent is not None:
            self._waits.observe(max(0.0, time.time() - sent))

    def ended(self, outcome: Outcome) -> None:
        """An outcome of ours stands in the books."""
        self._jobs.labels(outcome.status).inc()
        for stage, seconds in outcome.seconds.items():
            self._ports.labels(stage).observe(seconds)
        for role, seconds in outcome.device_seconds.items():
            self._device.labels(role).inc(seconds)
        for fate, count in Counted(map(_fate, outcome.candidates)).items():
            self._candidates.labels(fate).inc(count)

    def requeued(self, reason: str) -> None:
        """A job went back for one of the REASONS."""
        self._back.labels(reason).inc()

    def batch(self, role: str, filled: int, places: int) -> None:
        """A single item may be larger than a batch; then it had one of its own."""
        self._batches.labels(role).observe(min(1.0, filled / places))

    def texts(self, role: str, known: int, fresh: int) -> None:
        """Hits and misses."""
        self._texts.labels(role, "hit").inc(known)
        self._texts.labels(role, "miss").inc(fresh)

    def trouble(self, service: str, kind: str) -> None:
        """One more failure of a service."""
        self._errors.labels(service, kind).inc()

    def _begin_at_zero(self) -> None:
        """Have the series there before the first event, which a rate would else not see."""
        for status in Status:
            if status is not Status.INVALID:  # such a row never becomes a job
                self._jobs.labels(status)
        for fate in FATES:
            self._candidates.labels(fate)
        for reason in REASONS:
            self._back.labels(reason)
        for stage in STAGES:
            self._ports.labels(stage)
        for role in ROLES:
            self._device.labels(role)


def _fate(candidate: CandidateRecord) -> str:
    if candidate.score is None:
        return "dropped"
    return "valid" if candidate.score.valid else "invalid"
