"""S3's errors: said in words that help, and never with a key in them."""

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.errors import StoreError
from pipeline.storing.s3 import S3Store

ACCESS_KEY, SECRET_KEY = "AKIAPRESSRUNTEST", "the-secret-key-of-the-tests"

Answer = tuple[int, str]
"""A status, and the code of an S3 error or the body of a success."""


CUT_SHORT = b"[...]"


class S3Script:
    """A server that answers each request with the next of its answers, the last one forever."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers, self.requests = answers, list[Any]()

    def next(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        size = int(handler.headers.get("content-length", 0))
        self.requests.append((handler.command, dict(handler.headers), handler.rfile.read(size)))
        status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status < 400:
            return status, text.encode()
        echo = json.dumps(dict(handler.headers))
        return status, f"<Error><Code>{text}</Code><Message>{echo}</Message></Error>".encode()


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[str, S3Script]]:
    script = S3Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, body = script.next(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + body.endswith(CUT_SHORT)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 - names that the base class looks for

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", script
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


def put(store: S3Store, **options: bool) -> bool:
    return store.put("key", b"data", content_type="text/plain", **options)


def refusal(call: Callable[[], object]) -> str:
    """The StoreError's message; sees to it that no key stands in it or in its traceback."""
    with pytest.raises(StoreError) as caught:
        call()
    whole = "".join(traceback.format_exception(caught.value))
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret not in whole
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ((404, "NoSuchBucket"), "PRESSRUN_STORE"),
        ((403, "AccessDenied"), "access denied"),
        ((403, "InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID"),
        ((403, "SignatureDoesNotMatch"), "AWS_SECRET_ACCESS_KEY"),
        ((400, "AuthorizationHeaderMalformed"), "PRESSRUN_S3_REGION"),
        ((400, "KMS.NotFoundException"), "PRESSRUN_S3_KMS_KEY"),
        ((507, "InsufficientStorage"), "InsufficientStorage"),
    ],
)
def test_says_what_to_do(answer: Answer, advice: str) -> None:
    with serving(answer) as (url, _):
        store = S3Store("bucket", "", url, attempts=1)
        for call in (
            lambda: put(store, new=True),
            lambda: store.get("key"),
            lambda: list(store.keys("")),
            lambda: store.delete("key"),
        ):
            message = refusal(call)
            assert advice in message
            assert "'bucket'" in message


def test_says_that_nobody_answers() -> None:
    with serving((200, "")) as (url, _):
        pass
    store = S3Store("bucket", "", url, attempts=1)
    message = refusal(lambda: put(store))
    assert "PRESSRUN_S3_ENDPOINT_URL" in message
    assert url in message


def test_says_that_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with serving((200, "")) as (url, _):
        store = S3Store("bucket", "", url)
        assert "no credentials" in refusal(lambda: put(store))


def test_says_no_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break at the end of a key, as a mounted secret often has it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY + "\n")
    with serving((200, "")) as (url, _):
        store = S3Store("bucket", "", url, attempts=1)
        refusal(lambda: put(store))


def test_refuses_credentials_in_the_endpoint() -> None:
    message = refusal(lambda: S3Store("bucket", "", f"http://{ACCESS_KEY}:{SECRET_KEY}@host"))
    assert "keep credentials out" in message


@pytest.mark.parametrize(("bucket", "endpoint"), [("b!/d", ""), ("bucket", "no-url")])
def test_refuses_addresses_that_are_none(bucket: str, endpoint: str) -> None:
    refusal(lambda: put(S3Store(bucket, "", endpoint, attempts=1)))


def test_tries_again_after_a_conflict() -> None:
    with serving((409, "ConditionalRequestConflict"), (200, "")) as (url, script):
        assert put(S3Store("bucket", "", url), new=True)
    assert [headers["If-None-Match"] for _, headers, _ in script.requests] == ["*", "*"]


def test_an_existing_blob_is_no_error_only_when_asked() -> None:
    with serving((412, "PreconditionFailed")) as (url, _):
        store = S3Store("bucket", "", url, attempts=1)
        assert put(store, new=True) is False
        refusal(lambda: put(store))


def test_tries_again_when_the_server_is_busy() -> None:
    with serving((503, "SlowDown"), (200, "data")) as (url, script):
        assert S3Store("bucket", "", url).get("key") == b"data"
    assert len(script.requests) == 2


def test_tries_again_when_the_answer_breaks_off() -> None:
    with serving((200, "da" + CUT_SHORT.decode()), (200, "data")) as (url, script):
        assert S3Store("bucket", "", url, attempts=1).get("key") == b"data"
    assert len(script.requests) == 2


def test_an_answer_that_always_breaks_off_is_an_error() -> None:
    with serving((200, "da" + CUT_SHORT.decode())) as (url, _):
        refusal(lambda: S3Store("bucket", "", url, attempts=1).get("key"))


def test_sends_type_and_checksum_in_plain_headers() -> None:
    with serving((200, "")) as (url, script):
        put(S3Store("bucket", "", url))
    _, headers, body = script.requests[0]
    assert body == b"data"
    assert headers["Content-Type"] == "text/plain"
    assert headers["x-amz-checksum-sha256"] == "Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc="
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256")
    assert "If-None-Match" not in headers


def test_address_is_that_of_the_bucket_or_of_the_endpoint() -> None:
    assert S3Store("bucket").address("a/b") == "s3://bucket/a/b"
    assert S3Store("bucket", "pre/fix/").address("") == "s3://bucket/pre/fix"
    here = S3Store("bucket", "pre", "http://host:9000/")
    assert here.address("a b/ü") == "http://host:9000/bucket/pre/a%20b/%C3%BC"
