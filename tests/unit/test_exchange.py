"""A server that is slow in any part of its answer is given up in time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import httpx
import pytest

from pipeline.http import BadAnswer, Exchange

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def talking(*pieces: bytes, again: bytes = b"", pause: float = 0.05) -> Iterator[str]:
    """A server that answers in pieces, and then says `again` for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                while connection.recv(65536):
                    for piece in pieces:
                        connection.sendall(piece)
                    while again:
                        connection.sendall(again)
                        time.sleep(pause)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def post(url: str, seconds: float = 0.5) -> bytes:
    with closing(Exchange()) as exchange:
        return exchange.post(url, json={}, seconds=seconds, largest=1000).body


@pytest.mark.parametrize(
    ("pieces", "again"),
    [
        ((), b""),
        ((), b"H"),
        ((HEAD,), b"X-More: a\r\n"),
        ((HEAD, b"Transfer-Encoding: chunked\r\n\r\n"), b"1\r\n \r\n"),
        ((HEAD, b"Content-Length: 900\r\n\r\n"), b"a"),
    ],
)
def test_every_trickle_ends_at_the_limit(pieces: tuple[bytes, ...], again: bytes) -> None:
    start = time.monotonic()
    with talking(*pieces, again=again) as url, pytest.raises((TimeoutError, httpx.ProtocolError)):
        post(url)
    assert time.monotonic() - start < 3


def test_a_second_answer_has_a_limit_too() -> None:
    """Over the connection that was kept from the first one."""
    with talking(HEAD, b"Content-Length: 2\r\n\r\nab") as url, closing(Exchange()) as exchange:
        ask: Callable[[], bytes] = lambda: exchange.post(url, seconds=5, largest=9).body  # noqa: E731
        assert [ask(), ask()] == [b"ab", b"ab"]


@pytest.mark.parametrize("encoding", [b"gzip", b"gzip, gzip", b"br"])
def test_a_packed_answer_is_not_unpacked(encoding: bytes) -> None:
    head = HEAD + b"Content-Encoding: " + encoding + b"\r\nContent-Length: 3\r\n\r\nabc"
    with talking(head) as url, pytest.raises(BadAnswer, match="asked for plain"):
        post(url)


def test_an_endless_answer_is_not_kept() -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    more = b"100\r\n" + b"x" * 256 + b"\r\n"
    with (
        talking(head, again=more, pause=0) as url,
        pytest.raises(BadAnswer, match="more than 1000"),
    ):
        post(url, seconds=10)
