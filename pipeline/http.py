"""HTTP with servers that may be busy, slow or hostile: limits of time and size for a whole answer,
and further tries.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_exponential_jitter,
)

ATTEMPTS = 4
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds between tries; the longest wait holds even where the server requests more."""
CONNECT_SECONDS = 10.0
OURS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Transport errors that another try cannot help: the fault is in the request."""
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


def worth_another_try(status: int) -> bool:
    """True for the status of a server that is broken, busy, or was too slow."""
    return status >= 500 or status in (408, 425, 429)


class Exchange:
    """A client that requests uncompressed answers, tries again, and follows no redirects."""

    def __init__(self, **settings: Any) -> None:
        self._client = httpx.Client(
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS), **settings
        )
        self._client.headers["Accept-Encoding"] = "identity"
        for transport in (self._client._transport, *self._client._mounts.values()):
            if isinstance(transport, httpx.HTTPTransport):
                # httpx has no way to hand it in, and limits each read by itself
                transport._pool._network_backend = _Backend()

    def post(
        self,
        url: str | httpx.URL,
        *,
        seconds: float,
        largest: int,
        attempts: int = ATTEMPTS,
        again: Callable[[Answer], bool] = lambda answer: worth_another_try(answer.status),
        timeouts_too: bool = False,
        **content: Any,
    ) -> Answer:
        """The answer to a POST: the last one of at most `attempts`, whatever its status.

        Broken connections, and answers for which `again` is true, are tried again after jittered
        waits, or as the server's Retry-After says. Raises TimeoutError for a try of more than
        `seconds`; as the server may still be at work, it is tried again with `timeouts_too` only.
        Raises BadAnswer for an answer that is compressed or has more than `largest` bytes, and the
        last httpx.TransportError.
        """
        kinds = (httpx.TransportError, TimeoutError) if timeouts_too else (httpx.TransportError,)

        def passing(error: BaseException) -> bool:
            if isinstance(error, BadAnswer):
                return worth_another_try(error.status)
            return isinstance(error, kinds) and not isinstance(error, OURS)

        backoff = wait_exponential_jitter(
            multiplier=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT
        )

        def wait(state: RetryCallState) -> float:
            # the last one's answer; None after an error
            answer = None if not state.outcome or state.outcome.failed else state.outcome.result()
            asked = _retry_after(answer) if answer else None
            return backoff(state) if asked is None else min(asked, LONGEST_WAIT)

        def give_up(state: RetryCallState) -> Answer:
            assert state.outcome
            answer: Answer = state.outcome.result()
            return answer

        retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait,
            retry=retry_if_result(again) | retry_if_exception(passing),
            retry_error_callback=give_up,
        )
        return retrying(self._post, url, seconds, largest, content)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(
        self, url: str | httpx.URL, seconds: float, largest: int, content: Mapping[str, Any]
    ) -> Answer:
        _deadline.at = time.monotonic() + seconds
        try:
            with self._client.stream("POST", url, **content) as response:
                encoding = response.headers.get("content-encoding", "identity").strip().lower()
                if encoding not in ("", "identity"):
                    packed = f"packed as {encoding[:40]!r}, though it was asked for plain"
                    raise BadAnswer(packed, response.status_code)
                body = bytearray()
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > largest:
                        raise BadAnswer(f"more than {largest} bytes", response.status_code)
        except httpx.TimeoutException as error:
            if time.monotonic() >= _deadline.at:
                raise TimeoutError from error
            raise
        finally:
            _deadline.at = math.inf
        return Answer(response.status_code, bytes(body), response.headers)


def _retry_after(answer: Answer) -> float | None:
    """Seconds to wait by the `Retry-After` header, a number or a date; None without one."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:6])
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


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
