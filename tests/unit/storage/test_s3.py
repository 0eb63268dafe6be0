"""S3's errors: said in words that help, and never with a key in them."""

import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.assemble import reach_store
from pipeline.errors import StoreError, StoreFull, Unconditional
from pipeline.ports import Blob
from pipeline.settings import Settings
from pipeline.storage import s3
from pipeline.storage.probe import WRITERS, honours_conditions
from pipeline.storage.s3 import S3Store
from pipeline.storage.s3_upload import PART_BYTES, encryption

ACCESS_KEY, SECRET_KEY = "AKIAPRESSRUNTEST", "the-secret-key-of-the-tests"

LISTING = """<ListBucketResult><Contents><Key>key</Key><Size>7</Size>
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"""
UPLOADS = """<ListMultipartUploadsResult><Upload><Key>key</Key><UploadId>id</UploadId>
<Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"""

Answer = tuple[int, str]
"""A status, and the code of an S3 error or the body of a success."""


CUT_SHORT = b"[...]"
DATE = "Thu, 01 Jan 2026 00:01:00 GMT"


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
            self.send_response_only(status)
            self.send_header("Date", DATE)
            self.send_header("ETag", '"etag"')
            self.send_header("Content-Length", str(len(body) + body.endswith(CUT_SHORT)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - names that the base class looks for

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


def put(store: S3Store, data: bytes = b"data", *, new: bool = False) -> bool:
    return store.put("key", data, content_type="text/plain", new=new)


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


def test_a_server_without_conditions_is_told_apart() -> None:
    with serving((501, "NotImplemented")) as (url, _):
        store = S3Store("bucket", "", url, attempts=1)
        with pytest.raises(Unconditional, match="If-None-Match"):
            put(store, new=True)
        with pytest.raises(StoreError, match="NotImplemented") as caught:
            put(store)
    assert not isinstance(caught.value, Unconditional)
    with serving(*[(501, "NotImplemented")] * WRITERS, (200, "")) as (url, _):
        assert not honours_conditions(S3Store("bucket", "", url, attempts=1), "")


def test_looks_before_it_writes_where_conditions_do_not_hold() -> None:
    with serving((404, ""), (200, ""), (200, "")) as (url, script):
        store = S3Store("bucket", "", url, conditional=False)
        assert put(store, new=True)
        assert not put(store, new=True)
    assert [method for method, _, _ in script.requests] == ["HEAD", "PUT", "HEAD"]
    assert "If-None-Match" not in script.requests[1][1]


def test_a_full_store_is_told_apart() -> None:
    with serving((507, "InsufficientStorage")) as (url, _), pytest.raises(StoreFull):
        put(S3Store("bucket", "", url, attempts=1))


def test_age_is_by_the_clock_of_the_server() -> None:
    with serving((200, LISTING)) as (url, _):
        (blob,) = S3Store("bucket", "", url).listing("")
    assert blob == Blob("key", bytes=7, age=60)


def test_a_sweep_aborts_old_uploads_alone() -> None:
    with serving((200, UPLOADS), (404, "NoSuchUpload"), (200, UPLOADS)) as (url, script):
        store = S3Store("bucket", "", url)
        assert store.sweep("", older=59) == 1
        assert store.sweep("", older=61) == 0
    assert [method for method, _, _ in script.requests] == ["GET", "DELETE", "GET"]


def test_a_sweep_forgives_a_server_that_cannot_list_uploads() -> None:
    with serving((501, "NotImplemented")) as (url, _):
        assert S3Store("bucket", "", url, attempts=1).sweep("", older=0) == 0


def test_begins_an_upload_again_that_is_gone() -> None:
    begun = "<R><UploadId>id</UploadId></R>"
    answers = [(200, begun), *[(404, "NoSuchUpload")] * 3, (200, begun)]
    with serving(*answers) as (url, script):
        assert put(S3Store("bucket", "", url, attempts=1), bytes(PART_BYTES + 1), new=True)
    assert script.requests[-1][1]["If-None-Match"] == "*"


def test_asks_for_encryption() -> None:
    asked = encryption("aws:kms", "key-id")
    with serving((200, "")) as (url, script):
        put(S3Store("bucket", "", url, encryption=asked))
        put(S3Store("bucket", "", url, encryption=encryption("AES256", "")))
        put(S3Store("bucket", "", url, encryption=encryption("", "")))
    name = "x-amz-server-side-encryption"
    sent = [headers for _, headers, _ in script.requests]
    assert [headers.get(name) for headers in sent] == ["aws:kms", "AES256", None]
    assert sent[0][f"{name}-aws-kms-key-id"] == "key-id"


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


@pytest.mark.parametrize("to_file", [False, True])
def test_an_object_that_trickles_is_given_up(to_file: bool, tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            while True:
                connection.sendall(b"a")
                time.sleep(0.05)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=listening.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        start = time.monotonic()
        store = S3Store("bucket", "", url, read_seconds=0.3)
        with pytest.raises(StoreError, match="no whole object"):
            store.fetch("key", tmp_path / "file") if to_file else store.get("key")
        assert time.monotonic() - start < 60, "it would take 500 s"


def test_a_server_that_never_answers_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(StoreError, match="correct PRESSRUN_S3_ENDPOINT_URL or start the"):
            reach_store(Settings(store="s3://bucket", s3_endpoint_url=url))
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("answer", [(200, ""), (403, "AccessDenied"), (503, "SlowDown")])
def test_whatever_a_server_says_it_is_there(answer: Answer) -> None:
    with serving(answer) as (url, _):
        reach_store(Settings(store="s3://bucket", s3_endpoint_url=url))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RequestTimeTooSkewed", "clock"),
        ("SecondLevelDomainForbidden", "PRESSRUN_S3_ADDRESSING=virtual"),
    ],
)
def test_what_a_setting_or_a_clock_mends_is_said(name: str, hint: str) -> None:
    with serving((403, name)) as (url, _), pytest.raises(StoreError, match=hint):
        put(S3Store("bucket", "", url, attempts=1))


def test_an_endpoint_without_a_scheme_is_named() -> None:
    with pytest.raises(StoreError, match="PRESSRUN_S3_ENDPOINT_URL must begin with http"):
        S3Store("bucket", "", "minio:9000")


def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(StoreError, match="no profile 'nope'; correct AWS_PROFILE"):
        S3Store("bucket")


@pytest.mark.parametrize(
    ("addressing", "place"),
    [
        ("auto", "https://s3.example/bucket/key"),
        ("path", "https://s3.example/bucket/key"),
        ("virtual", "https://bucket.s3.example/key"),
    ],
)
def test_addresses_are_made_as_asked(addressing: Any, place: str) -> None:
    client = S3Store("bucket", "", "https://s3.example", addressing=addressing)._client
    asked = client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "key"})
    assert asked.partition("?")[0] == place
