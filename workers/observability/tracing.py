"""OpenTelemetry spans of a run across its processes: run, shard, job, stage.

Off unless PRESSRUN_TRACES is set; the OTEL_ variables name the collector. The pipeline and this
module use the API alone, whose calls do nothing without the SDK.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from opentelemetry import context, propagate, trace

from pipeline.errors import ConfigError
from pipeline.record import version
from pipeline.settings import Settings

_UNDRAWN = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))
"""Parent span of a job that is not sampled: by its flags nothing below it is recorded."""
FLUSH_MS = 5000
"""A collector that does not answer must not keep a process from exiting."""


@contextmanager
def traced(settings: Settings, service: str) -> Iterator[None]:
    """Trace the block if the settings say so, as `service`. Raises ConfigError without the SDK.

    A provider that is already set up is kept.
    """
    if not settings.traces:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            "PRESSRUN_TRACES needs OpenTelemetry's SDK: pip install 'pressrun[traces]'."
        ) from error
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service)}
        provider = TracerProvider(resource=Resource.create(named | {"service.version": version()}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.force_flush(FLUSH_MS)


@contextmanager
def run_span(run: str) -> Iterator[None]:
    """A span around a flow's work on a run."""
    tracer = trace.get_tracer("pressrun")
    with tracer.start_as_current_span("run", attributes={"pressrun.run": run}):
        yield


@contextmanager
def job_span(run: str, job: str, headers: Mapping[str, Any], share: float) -> Iterator[None]:
    """A span around the execution of a job, below the span in its message's headers.

    Only this share of the jobs is sampled, by their ids: always the same ones.
    """
    drawn = crc32(job.encode()) < share * 2**32
    token = context.attach(propagate.extract(headers) if drawn else context.Context())
    attributes = {"pressrun.run": run, "pressrun.job": job}
    try:
        with (
            trace.get_tracer("pressrun").start_as_current_span(
                "job", kind=trace.SpanKind.CONSUMER, attributes=attributes
            )
            if drawn
            else trace.use_span(_UNDRAWN)
        ):
            yield
    finally:
        context.detach(token)


def set_attributes(**attributes: str) -> None:
    """Set attributes of the current span, with our prefix."""
    span = trace.get_current_span()
    for name, value in attributes.items():
        span.set_attribute(f"pressrun.{name}", value)


def inject_context() -> dict[str, str]:
    """Headers of a message that carry the current span to its receiver."""
    headers = dict[str, str]()
    propagate.inject(headers)
    return headers
