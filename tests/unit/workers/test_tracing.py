"""The sampling of jobs, and its requirements. tests/integration checks that spans arrive."""

import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline.errors import ConfigError
from pipeline.settings import load_settings
from pipeline.telemetry import stage
from workers.observability.tracing import inject_context, job_span, traced

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"sent": 1.5, "lang": "py", "traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """The spans of this process from now on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def drawn(share: float, count: int = 400) -> set[str]:
    """The jobs, of `count`, that are executed below the span in their message's headers."""
    found = set()
    for job in map(str, range(count)):
        with job_span("run", job, HEADERS, share):
            if TRACE in inject_context().get("traceparent", ""):
                found.add(job)
    assert inject_context() == {}
    return found


def test_a_share_of_the_jobs_is_traced_and_always_the_same_ones() -> None:
    assert (len(drawn(0.0)), len(drawn(1.0))) == (0, 400)
    assert 60 < len(drawn(0.25)) < 140
    assert drawn(0.25) == drawn(0.25) < drawn(0.5)


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(ConfigError, match=r"pressrun\[traces\]"),
        traced(load_settings(traces=0.1), "us"),
    ):
        pass
    with traced(load_settings(), "us"):
        assert inject_context() == {}


def test_a_job_that_is_not_sampled_has_no_spans(exporter: InMemorySpanExporter) -> None:
    for share in (0.0, 1.0):
        for headers in ({}, HEADERS):
            exporter.clear()
            with job_span("run", "j1", headers, share), stage("write"):
                pass
            names = [span.name for span in exporter.get_finished_spans()]
            assert names == (["write", "job"] if share else [])
