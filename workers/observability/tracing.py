"""The way of a run through its processes, for OpenTelemetry: run, shard, job, stage.

Nothing is traced unless PRESSRUN_TRACES asks for it; where spans go is said by the OTEL_ variables.
The pipeline and this module know the API alone, whose calls do nothing without the SDK.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from zlib import crc32

from opentelemetry import context, propagate, trace

from pipeline.errors import ConfigError
from pipeline.job import version
from pipeline.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_UNDRAWN = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))
"""What stands for the span of a job that is not traced: below it nothing is, by its flags."""
FLUSH_MS = 5000
"""A collector that does not answer must not keep a process from its end."""


@contextmanager
def traced(settings: Settings, service: str) -> Iterator[None]:
    """Have what runs inside traced, where the settings want that; `service` is what we are called.

    A provider that somebody has set up already stays. Raises ConfigError without the SDK.
    """
    if not settings.traces:
        yield
        return
    try:
        provider = _provider(service)
    except ImportError as error:
        raise ConfigError(
            "PRESSRUN_TRACES needs OpenTelemetry's SDK: pip install 'pressrun[traces]'."
        ) from error
    try:
        yield
    finally:
        provider.force_flush(FLUSH_MS)


@contextmanager
def run_span(run: str) -> Iterator[None]:
    """A flow's work on a run, as a span."""
    tracer = trace.get_tracer("pressrun")
    with tracer.start_as_current_span("run", attributes={"pressrun.run": run}):
        yield


@contextmanager
def job_span(run: str, job: str, headers: Mapping[str, Any], share: float) -> Iterator[None]:
    """The execution of a job, as a span below the one that its message's headers tell of; only for
    this share of the jobs, and always the same ones.
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


def tell(**attributes: str) -> None:
    """Give the current span attributes."""
    span = trace.get_current_span()
    for name, value in attributes.items():
        span.set_attribute(f"pressrun.{name}", value)


def carried() -> dict[str, str]:
    """The headers that tell a message's receiver of the current span."""
    headers = dict[str, str]()
    propagate.inject(headers)
    return headers


def _provider(service: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    standing = trace.get_tracer_provider()
    if isinstance(standing, TracerProvider):
        return standing
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service)}
    provider = TracerProvider(resource=Resource.create(named | {"service.version": version()}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider
