"""The S3 store's requests, over a server that gives prepared answers."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreError, Unconditional
from pipeline.ports import Blob
from pipeline.storage.probe import WRITERS, honours_conditions
from pipeline.storage.s3 import S3Store
from pipeline.storage.s3_upload import PART_BYTES, encryption
from tests.harness.scripted_s3 import CUT_SHORT, put, refusal, serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("credentials")]

LISTING = """<ListBucketResult><Contents><Key>key</Key><Size>7</Size>
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"""
UPLOADS = """<ListMultipartUploadsResult><Upload><Key>key</Key><UploadId>id</UploadId>
<Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"""


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
