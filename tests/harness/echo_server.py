"""Servers that refuse every request and repeat it in the answer, secrets included."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    status = 401


class _Web(BaseHTTPRequestHandler):
    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        said = f"Refused: {self.path} {dict(self.headers)!r}".encode()
        assert isinstance(self.server, _Server)
        self.send_response(self.server.status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Redis(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while asked := self.request.recv(4096):
            self.request.sendall(b"-WRONGPASS " + b" ".join(asked.split()) + b"\r\n")


@contextmanager
def refusing_web(status: int = 401) -> Iterator[int]:
    """The port of a web server that answers every request with a status and its headers."""
    server = _Server(("127.0.0.1", 0), _Web)
    server.status = status
    with _serving(server) as port:
        yield port


@contextmanager
def refusing_redis() -> Iterator[int]:
    """The port of a Redis that takes no password."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Redis)
    server.daemon_threads = True
    with _serving(server) as port:
        yield port


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
