"""S3's errors: said in words that help, and never with a key in them."""

import socket
import time

import pytest

from pipeline.assemble.stores import reach_store
from pipeline.errors import StoreError, StoreFull
from pipeline.settings import Settings
from pipeline.storage import s3
from pipeline.storage.s3 import S3Store
from tests.harness.scripted_s3 import ACCESS_KEY, SECRET_KEY, Answer, put, refusal, serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("credentials")]


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


def test_a_key_that_no_header_can_carry_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break at the end of a key, as a mounted secret often has it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY + "\n")
    with serving((200, "")) as (url, _):
        store = S3Store("bucket", "", url, attempts=1)
        refusal(lambda: put(store))


def test_refuses_credentials_in_the_endpoint() -> None:
    message = refusal(lambda: S3Store("bucket", "", f"http://{ACCESS_KEY}:{SECRET_KEY}@host"))
    assert "keep credentials out" in message


@pytest.mark.parametrize(("bucket", "endpoint"), [("b!/d", ""), ("bucket", "no-url")])
def test_a_malformed_bucket_or_endpoint_is_refused(bucket: str, endpoint: str) -> None:
    refusal(lambda: put(S3Store(bucket, "", endpoint, attempts=1)))


def test_a_full_store_is_told_apart() -> None:
    with serving((507, "InsufficientStorage")) as (url, _), pytest.raises(StoreFull):
        put(S3Store("bucket", "", url, attempts=1))


def test_a_server_that_never_answers_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(StoreError, match="correct PRESSRUN_S3_ENDPOINT_URL or start the"):
            reach_store(Settings(store="s3://bucket", s3_endpoint_url=url))
        assert time.monotonic() - start < 30


@pytest.mark.parametrize("answer", [(200, ""), (403, "AccessDenied"), (503, "SlowDown")])
def test_a_server_that_answers_anything_is_reachable(answer: Answer) -> None:
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
