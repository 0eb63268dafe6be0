"""A proxy before an S3 server that refuses requests, and delays, loses or changes answers."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_CODES = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}
_LATE = 1.0
"""Seconds by which an answer comes late at most."""
_HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


class Fault(Enum):
    """The fault of one request."""

    NONE = auto()
    REFUSED = auto()  # a 500 in its place
    BUSY = auto()  # a 503 in its place
    FORBIDDEN = auto()  # a 403 in its place
    DENIED = auto()  # done, and a 500 all the same
    LOST = auto()  # done, and the connection breaks before the answer
    SILENT = auto()  # no answer, until the proxy stops
    LATE = auto()  # done, and answered up to a second later
    CHANGED = auto()  # done, and one byte of the answer's body is another one


@dataclass
class FaultyS3:
    """The proxy's address and the faults it made. `plan` chooses the fault of each request;
    `answered` receives method, path and the status of the server behind.
    """

    plan: Callable[[str, str], Fault]
    answered: Callable[[str, str, int], None] = lambda method, path, status: None
    endpoint: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)
    faults: list[Fault] = field(default_factory=list)


def one_in(count: int, *faults: Fault) -> Callable[[str, str], Fault]:
    """A plan: every `count`-th request meets the next of the faults, in turn."""
    lock, seen = threading.Lock(), 0

    def plan(method: str, path: str) -> Fault:
        nonlocal seen
        with lock:
            seen += 1
            turn, rest = divmod(seen, count)
            return Fault.NONE if rest else faults[turn % len(faults)]

    return plan


def first(method: str, fault: Fault) -> Callable[[str, str], Fault]:
    """A plan: the first request with this method meets the fault."""
    lock, met = threading.Lock(), False

    def plan(found: str, path: str) -> Fault:
        nonlocal met
        with lock:
            if met or found != method:
                return Fault.NONE
            met = True
            return fault

    return plan


@contextmanager
def faulty_s3(upstream: str, plan: Callable[[str, str], Fault]) -> Iterator[FaultyS3]:
    """Forward to `upstream`, except for the faults of the plan.

    The Host header is passed on unchanged, so that signatures hold.
    """
    proxy = FaultyS3(plan)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy, urlsplit(upstream).netloc))
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        server.shutdown()
        server.server_close()


def _handler(proxy: FaultyS3, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = proxy.plan(self.command, self.path)
            proxy.faults.append(fault)
            match fault:
                case Fault.REFUSED:
                    self._refuse(500)
                case Fault.BUSY:
                    self._refuse(503)
                case Fault.FORBIDDEN:
                    self._refuse(403)
                case Fault.SILENT:
                    proxy.stopped.wait()
                    self._hang_up()
                case _:
                    self._finish(fault, *_forward(self, upstream, body))

        def _finish(
            self, fault: Fault, status: int, headers: list[tuple[str, str]], body: bytes
        ) -> None:
            proxy.answered(self.command, self.path, status)
            match fault:
                case Fault.LOST:
                    self._hang_up()
                case Fault.DENIED:
                    self._refuse(500)
                case Fault.CHANGED if body:
                    self._answer(status, headers, bytes([body[0] ^ 1]) + body[1:])
                case Fault.LATE:
                    time.sleep(random.uniform(0, _LATE))
                    self._answer(status, headers, body)
                case _:
                    self._answer(status, headers, body)

        def _refuse(self, status: int) -> None:
            self._answer(status, [], f"<Error><Code>{_CODES[status]}</Code></Error>".encode())

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name, _ in headers):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the base class looks for these

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    return Handler


def _forward(
    handler: BaseHTTPRequestHandler, upstream: str, body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection(upstream, timeout=60)
    try:
        headers = dict(_end_to_end(handler.headers.items()))
        connection.request(handler.command, handler.path, body, headers)
        answer = connection.getresponse()
        return answer.status, list(_end_to_end(answer.getheaders())), answer.read()
    finally:
        connection.close()


def _end_to_end(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP)
