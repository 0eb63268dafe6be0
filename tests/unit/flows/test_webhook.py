"""A webhook against a real web server."""

import json

import pytest

from flows import webhook
from pipeline import http
from pipeline.errors import ConfigError
from pipeline.settings import load_settings
from tests.harness.chat_server import Reply, chat_server
from tests.harness.web_server import listening

SECRET = "a-secret-of-the-tests"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)


def test_it_is_told_what_happened_and_can_check_who_says_so() -> None:
    with listening(204) as (url, heard):
        settings = load_settings(webhook=url, webhook_secret=SECRET)
        webhook.notify(settings, "spring", "finished", {"summary": {"accepted": 3}})
    ((headers, body),) = heard
    told = json.loads(body)
    assert (told["event"], told["run"], told["summary"]["accepted"]) == ("finished", "spring", 3)
    assert headers[webhook.SIGNATURE] == webhook.signature(SECRET, body)
    assert headers[webhook.SIGNATURE] != webhook.signature("another", body)


@pytest.mark.parametrize(
    ("statuses", "requests"),
    [((500, 429, 200), 3), ((404,), 1), ((503,), webhook.ATTEMPTS), ((302,), 1)],
)
def test_a_post_is_repeated_after_an_error_that_may_pass(
    statuses: tuple[int, ...], requests: int
) -> None:
    with listening(*statuses) as (url, heard):
        webhook.notify(load_settings(webhook=url), "r", "failed", {"reason": "why"})
    assert len(heard) == requests
    assert len({json.loads(body)["id"] for _, body in heard}) == 1, "it can tell them apart"


def test_an_unreachable_webhook_is_a_warning_without_its_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    webhook.notify(load_settings(webhook="http://127.0.0.1:1/hook-token"), "r", "cancelled", {})
    said = capsys.readouterr()
    assert "the webhook was not told" in said.out + said.err
    assert "hook-token" not in said.out + said.err


def test_without_an_address_nobody_is_told_and_another_kind_is_refused() -> None:
    webhook.notify(load_settings(), "r", "finished", {})
    with pytest.raises(ConfigError, match="webhook"):
        load_settings(webhook="ftp://somewhere")


@pytest.mark.parametrize(
    "reply", [Reply(headers={"Content-Encoding": "gzip"}), Reply(body=b"x" * 3_000_000)]
)
def test_a_2xx_answer_counts_whatever_its_body(
    reply: Reply, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_server(lambda _: reply) as server:
        webhook.notify(load_settings(webhook=server.url), "r", "finished", {})
    said = capsys.readouterr()
    assert len(server.calls) == 1
    assert "not told" not in said.out + said.err
