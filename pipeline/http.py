"""HTTP with untrusted servers: one time limit and one size limit for a whole answer."""

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

CONNECT_SECONDS = 10.0
_PIECE = 16 * 1024


@dataclass(frozen=True)
class Answer:
    """A server's whole answer."""

    status: int
    body: bytes
    headers: httpx.Headers


class BadAnswer(Exception):
    """An answer is too large or compressed; the message is the reason."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Exchange:
    """A client that requests uncompressed answers and follows no redirects."""

    def __init__(self, **settings: Any) -> None:
        self._client = httpx.Client(
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS), **settings
        )
        self._client.headers["Accept-Encoding"] = "identity"
        for transport in (self._client._transport, *self._client._mounts.values()):
            if isinstance(transport, httpx.HTTPTransport):
                # httpx has no way to hand it in, and limits each read by itself
                transport._pool._network_backend = _Backend()

    def post(self, url: str | httpx.URL, *, seconds: float, largest: int, **content: Any) -> Answer:
        """The answer to a POST. Raises TimeoutError `seconds` after the start, BadAnswer for an
        answer that is compressed or has more than `largest` bytes, else httpx.TransportError.
        """
        _deadline.at = time.monotonic() + seconds
        try:
            with self._client.stream("POST", url, **content) as response:
                body = _plain(response, largest)
        except httpx.TimeoutException as error:
            if time.monotonic() >= _deadline.at:
                raise TimeoutError from error
            raise
        finally:
            _deadline.at = math.inf
        return Answer(response.status_code, body, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _plain(response: httpx.Response, largest: int) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BadAnswer(
            f"packed as {encoding[:40]!r}, though it was asked for plain", response.status_code
        )
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > largest:
            raise BadAnswer(f"more than {largest} bytes", response.status_code)
    return bytes(content)


class _Deadline(threading.local):
    at = math.inf


_deadline = _Deadline()


def _left(timeout: float | None, kind: type[Exception]) -> float | None:
    """The seconds left for one network operation. Raises `kind` after the deadline."""
    left = min(math.inf if timeout is None else timeout, _deadline.at - time.monotonic())
    if left <= 0:
        raise kind("the time is up")
    return None if left == math.inf else left


class _Stream(httpcore.NetworkStream):
    """A connection that ends each read and write at the thread's deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):
            left = _left(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _PIECE], left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, left, local_address, socket_options))
