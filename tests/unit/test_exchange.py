"""A server that is slow is given up in time, and one in trouble is asked again."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

import httpx
import pytest
from tenacity import Retrying

from pipeline import http
from pipeline.http import BadAnswer, Exchange
from tests.harness.chat_server import Call, ChatServer, Reply, chat_server

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
    assert time.monotonic() - start < 30


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


def in_turn(*replies: Reply) -> Callable[[Call], Reply]:
    """The replies one after the other, the last one for ever."""
    script = chain(replies, repeat(replies[-1]))
    return lambda _: next(script)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries."""
    waited: list[float] = []
    monkeypatch.setattr(http, "Retrying", partial(Retrying, sleep=waited.append))
    return waited


def status_of(server: ChatServer, **more: Any) -> int:
    with closing(Exchange()) as exchange:
        return exchange.post(server.url, json={}, seconds=0.5, largest=1000, **more).status


def test_the_last_answer_counts_whatever_it_is(waits: list[float]) -> None:
    with chat_server(in_turn(Reply(503))) as server:
        assert status_of(server, attempts=3) == 503
    assert (len(server.calls), len(waits)) == (3, 2)


def test_the_server_says_how_long_to_wait(waits: list[float]) -> None:
    busy = Reply(503, headers={"retry-after": "7"})
    with chat_server(in_turn(busy, busy, Reply(200))) as server:
        assert status_of(server) == 200
    assert waits == [7, 7]


def test_a_redirect_is_an_answer(waits: list[float]) -> None:
    with chat_server(in_turn(Reply(307, headers={"location": "http://127.0.0.1:1/"}))) as server:
        assert status_of(server) == 307
    assert not waits


def test_the_status_of_a_packed_answer_counts(waits: list[float]) -> None:
    packed = {"content-encoding": "gzip"}
    with chat_server(in_turn(Reply(502, headers=packed), Reply(200))) as server:
        assert status_of(server) == 200
    with chat_server(in_turn(Reply(200, headers=packed))) as server, pytest.raises(BadAnswer):
        status_of(server)
    assert len(waits) == 1


@pytest.mark.parametrize(("timeouts_too", "calls"), [(False, 1), (True, 2)])
def test_a_slow_server_is_asked_again_on_request(
    waits: list[float], timeouts_too: bool, calls: int
) -> None:
    slow = Reply(body=b"x" * 100, drip=1.0)
    with chat_server(in_turn(slow)) as server, pytest.raises(TimeoutError):
        status_of(server, attempts=2, timeouts_too=timeouts_too)
    assert len(server.calls) == calls


def test_a_request_that_cannot_be_sent_is_tried_once(waits: list[float]) -> None:
    with closing(Exchange()) as exchange, pytest.raises(httpx.UnsupportedProtocol):
        exchange.post("ftp://127.0.0.1/", seconds=1, largest=1)
    with closing(Exchange()) as exchange, pytest.raises(httpx.ConnectError):
        exchange.post("http://127.0.0.1:1/", seconds=1, largest=1)
    assert len(waits) == 3
