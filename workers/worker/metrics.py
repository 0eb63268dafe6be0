"""The metrics of one worker process, for Prometheus; docs/monitoring.md explains each.

Labels take few values, whatever the work: every value is a series that Prometheus keeps, so a
million jobs must make no more of them than ten. Jobs and runs are in records, logs and traces.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.job import Score
from pipeline.record import Outcome, Status, version
from pipeline.settings import Settings
from pipeline.telemetry import Observer
from pipeline.watchdog import seconds_since_beat

STAGES = ("retrieve", "write", "render", "judge", "commit")
ROLES = ("writer", "renderer", "judge")
FATES = ("valid", "invalid", "blocked", "dropped")
REASONS = ("unavailable", "store", "unhealthy", "error", "stopping")
"""Causes of a job going back to the queue."""
STATUSES = tuple(status for status in Status if status is not Status.INVALID)
"""Statuses of jobs; an invalid row never becomes one."""

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_WAITS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
_EIGHTHS = tuple(n / 8 for n in range(1, 9))

Labels = Mapping[str, Sequence[str]]
"""Label names with the values that are there from the start: a rate would else not see the first
event of a series. Empty if they are not known."""

COUNTERS: Mapping[str, tuple[str, Labels]] = {
    "pressrun_jobs": ("Outcomes that this worker committed, by status.", {"status": STATUSES}),
    "pressrun_candidates": (
        "Candidates of those outcomes: valid, invalid, blocked by a guard, or dropped on the way.",
        {"fate": FATES},
    ),
    "pressrun_handbacks": (
        "Jobs that the worker gave back without an outcome, by what was wrong.",
        {"reason": REASONS},
    ),
    "pressrun_device_seconds": (
        "Time of model calls on the device for those outcomes, by the model's role.",
        {"role": ROLES},
    ),
    "pressrun_text_cache": (
        "Texts that a model was to read: known (hit) or read anew (miss).",
        {"role": (), "result": ()},
    ),
    "pressrun_renderer_events": (
        "Renderers that were loaded, evicted, or changed to after a call of another one.",
        {"event": ("loaded", "evicted", "changed")},
    ),
    "pressrun_service_errors": (
        "Tries that the store or Qdrant refused or did not answer, by status or error.",
        {"service": (), "kind": ()},
    ),
}
HISTOGRAMS: Mapping[str, tuple[str, Sequence[float], Labels]] = {
    "pressrun_stage_seconds": (
        "Time of a job in each stage, waiting for its turn included.",
        _SECONDS,
        {"stage": STAGES},
    ),
    "pressrun_batch_occupancy_ratio": (
        "Filled part of each batch, of the engine's each step.",
        _EIGHTHS,
        {"role": ()},
    ),
    "pressrun_queue_wait_seconds": (
        "Time from the sending of a message to the beginning of its job.",
        _WAITS,
        {},
    ),
}


class WorkerMetrics(Observer):
    """Counts the work of this process; `ages` returns the age of each lease held, in seconds."""

    def __init__(self, settings: Settings, ages: Callable[[], Sequence[float]]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(DeviceMemory(settings.device))
        self._counters, self._histograms = dict[str, Counter](), dict[str, Histogram]()
        for name, (meaning, labels) in COUNTERS.items():
            self._counters[name] = Counter(name, meaning, list(labels), registry=registry)
            _begin_at_zero(self._counters[name], labels)
        for name, (meaning, buckets, labels) in HISTOGRAMS.items():
            histogram = Histogram(name, meaning, list(labels), registry=registry, buckets=buckets)
            self._histograms[name] = histogram
            _begin_at_zero(histogram, labels)
        gauges: Sequence[tuple[str, str, Callable[[], float]]] = (
            ("pressrun_leases", "Leases that the worker holds.", lambda: len(ages())),
            (
                "pressrun_lease_oldest_age_seconds",
                "Age of the oldest of them; 0 without one.",
                lambda: max(ages(), default=0.0),
            ),
            (
                "pressrun_quiet_seconds",
                "Time since the worker last took a step or was idle.",
                seconds_since_beat,
            ),
            (
                "pressrun_concurrency",
                "Jobs that the worker executes at a time at most.",
                lambda: settings.concurrency,
            ),
        )
        for name, meaning, value in gauges:
            Gauge(name, meaning, registry=registry).set_function(value)
        self._working = Gauge(
            "pressrun_jobs_in_work", "Jobs that the worker executes now.", registry=registry
        )
        Info(
            "pressrun_worker", "The worker's device and version; always 1.", registry=registry
        ).info({"device": settings.device, "version": version()})

    def working(self) -> AbstractContextManager[object]:
        """A block that executes a job."""
        return self._working.track_inprogress()

    def committing(self) -> AbstractContextManager[object]:
        """A block that writes a job's image and record."""
        return self._histograms["pressrun_stage_seconds"].labels("commit").time()

    def begun(self, sent: float | None) -> None:
        """Record the start of a job; `sent` is its message's time by the sender's clock."""
        if sent is not None:
            wait = max(0.0, time.time() - sent)
            self._histograms["pressrun_queue_wait_seconds"].observe(wait)

    def ended(self, outcome: Outcome) -> None:
        """Record an outcome that this worker has stored."""
        self._counters["pressrun_jobs"].labels(outcome.status).inc()
        for stage, seconds in outcome.seconds.items():
            self._histograms["pressrun_stage_seconds"].labels(stage).observe(seconds)
        for role, seconds in outcome.device_seconds.items():
            self._counters["pressrun_device_seconds"].labels(role).inc(seconds)
        for candidate in outcome.candidates:
            match candidate.score:
                case None:
                    fate = "dropped"
                case Score(valid=True):
                    fate = "valid"
                case Score(blocked=True):
                    fate = "blocked"
                case _:
                    fate = "invalid"
            self._counters["pressrun_candidates"].labels(fate).inc()

    def requeued(self, reason: str) -> None:
        """Record a job that goes back, for one of the REASONS."""
        self._counters["pressrun_handbacks"].labels(reason).inc()

    def batch(self, role: str, filled: int, places: int) -> None:
        """Record a batch. A single item may be larger than a batch; it then has one of its own."""
        ratio = min(1.0, filled / places)
        self._histograms["pressrun_batch_occupancy_ratio"].labels(role).observe(ratio)

    def texts(self, role: str, known: int, fresh: int) -> None:
        """Record hits and misses of a text cache."""
        self._counters["pressrun_text_cache"].labels(role, "hit").inc(known)
        self._counters["pressrun_text_cache"].labels(role, "miss").inc(fresh)

    def renderer(self, event: str) -> None:
        """Record a renderer's coming, going or turn."""
        self._counters["pressrun_renderer_events"].labels(event).inc()

    def trouble(self, service: str, kind: str) -> None:
        """Record one failure of a service."""
        self._counters["pressrun_service_errors"].labels(service, kind).inc()


class DeviceMemory(Collector):
    """Memory of the process's CUDA device, read at each scrape; empty until torch uses CUDA."""

    def __init__(self, device: str) -> None:
        # `auto` and `cuda` are torch's current one
        self._device = device if ":" in device else None

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One family, in bytes."""
        family = GaugeMetricFamily(
            "pressrun_device_memory_bytes",
            "Of the CUDA device: total, free, and what the worker has reserved and allocated.",
            labels=["kind"],
        )
        torch = sys.modules.get("torch")  # not imported here: it would take memory itself
        try:
            if torch is not None and torch.cuda.is_initialized():
                free, total = torch.cuda.mem_get_info(self._device)
                reserved = torch.cuda.memory_reserved(self._device)
                allocated = torch.cuda.memory_allocated(self._device)
                family.add_metric(["total"], total)
                family.add_metric(["free"], free)
                family.add_metric(["reserved"], reserved)
                family.add_metric(["allocated"], allocated)
        except (AttributeError, RuntimeError):  # it is being imported; or the device is lost
            pass
        return [family]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The family as collected."""
        return self.collect()


def _begin_at_zero(metric: Counter | Histogram, labels: Labels) -> None:
    for values in product(*labels.values()) if labels else ():
        metric.labels(*values)
