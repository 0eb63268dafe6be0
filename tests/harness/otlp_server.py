"""A collector that keeps the spans it is sent over OTLP/HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Sent:
    """A span as it arrived, and the service that sent it."""

    service: str
    name: str
    id: str
    parent: str
    trace: str
    attributes: dict[str, str]


@dataclass
class Collector:
    """The collector's address and the spans it received."""

    endpoint: str = ""
    spans: list[Sent] = field(default_factory=list)

    def named(self, name: str) -> list[Sent]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def below(self, span: Sent) -> list[Sent]:
        """The children of a span."""
        return [other for other in self.spans if other.parent == span.id]

    def above(self, span: Sent) -> list[Sent]:
        """A span's ancestors, its parent first."""
        found = [other for other in self.spans if other.id == span.parent]
        return [*found, *self.above(found[0])] if found else []

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {pair.key: pair.value.string_value for pair in span.attributes}
                    sent = Sent(
                        told["service.name"],
                        span.name,
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.trace_id.hex(),
                        values,
                    )
                    self.spans.append(sent)


@contextmanager
def otlp_server() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()
