"""The metrics endpoint of this process, for Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from pipeline.settings import Settings

log = structlog.get_logger(__name__)


@contextmanager
def exposed(
    settings: Settings, registry: CollectorRegistry, *collectors: Collector
) -> Iterator[None]:
    """Serve the metrics at /metrics of the port that the settings name, if any.

    A port that is taken is logged; the work goes on without metrics.
    """
    if not settings.metrics_port:
        yield
        return
    for collector in collectors:
        registry.register(collector)
    # else each has a second series, which nobody reads; the library gives this function no types
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        server, thread = prometheus_client.start_http_server(
            settings.metrics_port, settings.metrics_host, registry
        )
    except OSError as error:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        log.warning("the figures are not served", address=where, reason=error.strerror)
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
