"""A webhook against a real web server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows import webhook
from pipeline.errors import ConfigError
from pipeline.settings import load_settings

SECRET = "a-secret-of-the-tests"


@contextmanager
def listening(*statuses: int) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers with these statuses, the last one forever; what it was sent."""
    answers, heard = list(statuses), list[Any]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((dict(self.headers), body))
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook-token", heard
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LONGEST_PAUSE", 0.01)


def test_it_is_told_what_happened_and_can_check_who_says_so() -> None:
    with listening(204) as (url, heard):
        settings = load_settings(webhook=url, webhook_secret=SECRET)
        webhook.announce(settings, "spring", "finished", {"summary": {"accepted": 3}})
    ((headers, body),) = heard
    told = json.loads(body)
    assert (told["event"], told["run"], told["summary"]["accepted"]) == ("finished", "spring", 3)
    assert headers[webhook.SIGNATURE] == webhook.signature(SECRET, body)
    assert headers[webhook.SIGNATURE] != webhook.signature("another", body)


@pytest.mark.parametrize(
    ("statuses", "requests"),
    [((500, 429, 200), 3), ((404,), 1), ((503,), webhook.ATTEMPTS), ((302,), 1)],
)
def test_it_is_told_again_where_that_may_help(statuses: tuple[int, ...], requests: int) -> None:
    with listening(*statuses) as (url, heard):
        webhook.announce(load_settings(webhook=url), "r", "failed", {"reason": "why"})
    assert len(heard) == requests
    assert len({json.loads(body)["id"] for _, body in heard}) == 1, "it can tell them apart"


def test_one_that_is_away_harms_nobody_and_stays_secret(capsys: pytest.CaptureFixture[str]) -> None:
    webhook.announce(load_settings(webhook="http://127.0.0.1:1/hook-token"), "r", "cancelled", {})
    said = capsys.readouterr()
    assert "the webhook was not told" in said.out + said.err
    assert "hook-token" not in said.out + said.err


def test_without_an_address_nobody_is_told_and_another_kind_is_refused() -> None:
    webhook.announce(load_settings(), "r", "finished", {})
    with pytest.raises(ConfigError, match="webhook"):
        load_settings(webhook="ftp://somewhere")
