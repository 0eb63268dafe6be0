"""The figures of a flow that works on a run, for Prometheus; docs/monitoring.md explains them.

No label names the run, or each run would add series to Prometheus.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from flows.dispatch.dispatcher import Dispatcher, Progress
from pipeline.record import Status


class RunMetrics:
    """A Progress that counts for Prometheus and forwards to another Progress."""

    def __init__(self, progress: Progress, rows: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._progress, self._paused = progress, False
        self._jobs = Counter(
            "pressrun_flow_jobs", "Outcomes that the flow has learned of.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        for status in Status:
            if status is not Status.INVALID:  # such a row is never sent
                self._jobs.labels(status)
        self._pauses = Counter(
            "pressrun_flow_pauses", "Times that the breaker paused the run.", registry=self.registry
        )
        self._gauge("rows", "Rows of the run read so far, done or not.", rows)

    def show(self, dispatcher: Dispatcher) -> None:
        """Export this dispatcher's figures too."""
        breaker = dispatcher.breaker
        self._gauge(
            "jobs_in_flight", "Jobs sent that have no outcome.", lambda: dispatcher.in_flight
        )
        self._gauge(
            "breaker_open_seconds", "Time since the breaker paused the run; 0: it has not.",
            lambda: breaker.open_for,
        )  # fmt: skip
        self.registry.register(_SentAgain(dispatcher))

    def count(self, status: Status, device_seconds: float = 0.0) -> None:
        """Count an outcome and its device seconds."""
        self._jobs.labels(status).inc()
        self._progress.count(status, device_seconds)

    def pause(self, reason: str) -> None:
        """Report that the run pauses for this reason, or with an empty one that it resumes."""
        if reason and not self._paused:
            self._pauses.inc()
        self._paused = bool(reason)
        self._progress.pause(reason)

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        gauge = Gauge(f"pressrun_flow_{name}", meaning, registry=self.registry)
        gauge.set_function(value)


class _SentAgain(Collector):
    """A counter read from the dispatcher, which counts resent jobs itself."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The family of resent jobs."""
        yield CounterMetricFamily(
            "pressrun_flow_jobs_sent_again",
            "Jobs that were lost or handed back, and go into the queue once more.",
            value=self._dispatcher.sent_again,
        )
