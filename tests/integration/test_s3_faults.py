"""The S3 store behind a network and a server that have a bad day."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tenacity import wait_none

from pipeline.errors import StoreError
from pipeline.record import Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.storage.probe import honours_conditions
from pipeline.storage.s3 import S3Store
from pipeline.storage.s3_download import download
from pipeline.storage.s3_upload import PART_BYTES
from tests.conftest import Noted
from tests.harness.faulty_s3 import Fault, faulty_s3, first, one_in
from tests.harness.servers import S3Server, moto_s3, rclone_s3

pytestmark = pytest.mark.slow

BUCKET = "bucket"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto_s3(BUCKET) as server:
        yield server


@pytest.fixture(autouse=True)
def _credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A corner of the bucket for one test."""
    return str(request.node.name)


@pytest.fixture
def store(server: S3Server, prefix: str) -> S3Store:
    """The store without the faults, to see what became of it."""
    return S3Store(BUCKET, prefix, server.endpoint)


def put(store: S3Store, key: str, data: bytes, **options: bool) -> bool:
    return store.put(key, data, content_type="application/octet-stream", **options)


def outcome(job_id: str, attempt: str) -> Outcome:
    return Outcome(
        run="demo",
        job_id=job_id,
        status=Status.FAILED,
        row=1,
        keywords="a red circle",
        attempt=attempt,
        created_at="2026-01-01T00:00:00+00:00",
        version="0.1.0",
    )


def test_whoever_watches_is_told_of_each_try_that_failed(
    server: S3Server, prefix: str, noted: Noted
) -> None:
    with faulty_s3(server.endpoint, first("PUT", Fault.REFUSED)) as proxy:
        shaken = S3Store(BUCKET, prefix, proxy.endpoint)
        assert put(shaken, "key", b"data", new=True)
        assert not put(shaken, "key", b"data", new=True)
        with pytest.raises(KeyError):
            shaken.get("another")
    assert noted.troubles == {("store", "500"): 1}


@pytest.mark.parametrize("conditional", [True, False])
def test_every_fifth_answer_is_an_error(
    server: S3Server, prefix: str, store: S3Store, conditional: bool
) -> None:
    keys = [f"records/{number:03d}" for number in range(60)]
    with faulty_s3(server.endpoint, one_in(5, Fault.REFUSED, Fault.DENIED, Fault.LOST)) as proxy:
        shaken = S3Store(BUCKET, prefix, proxy.endpoint, conditional=conditional)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: put(shaken, key, key.encode(), new=True), keys))
            found = list(pool.map(shaken.get, keys))
            list(pool.map(shaken.delete, keys[:30]))
        assert found == [key.encode() for key in keys]
        assert list(shaken.keys("records/")) == keys[30:]
    assert len(proxy.faults) - proxy.faults.count(Fault.NONE) >= len(proxy.faults) // 5
    assert list(store.keys("")) == keys[30:]


def test_a_write_whose_answer_is_lost_is_ours(
    server: S3Server, prefix: str, store: S3Store
) -> None:
    with faulty_s3(server.endpoint, first("PUT", Fault.LOST)) as proxy:
        assert not put(S3Store(BUCKET, prefix, proxy.endpoint), "key", b"ours", new=True)
    assert proxy.faults == [Fault.LOST, Fault.NONE]
    assert store.get("key") == b"ours"


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DENIED, Fault.LOST])
def test_an_overwrite_is_made_again(
    server: S3Server, prefix: str, store: S3Store, fault: Fault
) -> None:
    put(store, "key", b"old")
    with faulty_s3(server.endpoint, first("PUT", fault)) as proxy:
        assert put(S3Store(BUCKET, prefix, proxy.endpoint), "key", b"new")
    assert store.get("key") == b"new"


def test_a_record_whose_answer_is_lost_is_known_by_its_attempt(
    server: S3Server, prefix: str, store: S3Store
) -> None:
    mine = outcome("job", "a" * 32)
    with faulty_s3(server.endpoint, first("PUT", Fault.LOST)) as proxy:
        run_folder = RunFolder(S3Store(BUCKET, prefix, proxy.endpoint), "demo")
        assert run_folder.records.commit(mine, None) == mine
    late = RunFolder(store, "demo").records.commit(outcome("job", "b" * 32), None)
    assert late.attempt == mine.attempt


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DENIED, Fault.LOST])
@pytest.mark.parametrize("new", [True, False])
def test_the_last_request_of_an_upload_in_parts_fails(
    server: S3Server, prefix: str, store: S3Store, fault: Fault, new: bool
) -> None:
    """The second POST; the first one begins the upload."""
    data = os.urandom(PART_BYTES + 1)
    skip_begin = iter([Fault.NONE, fault])

    def plan(method: str, path: str) -> Fault:
        return next(skip_begin, Fault.NONE) if method == "POST" else Fault.NONE

    with faulty_s3(server.endpoint, plan) as proxy:
        answer = put(S3Store(BUCKET, prefix, proxy.endpoint), "large", data, new=new)
    assert answer or (new and fault is not Fault.REFUSED)
    assert store.get("large") == data
    assert store.sweep("", older=-1) == 0


def test_an_upload_in_parts_that_fails_leaves_nothing(
    server: S3Server, prefix: str, store: S3Store
) -> None:
    def plan(method: str, path: str) -> Fault:
        return Fault.REFUSED if "partNumber=2" in path else Fault.NONE

    with faulty_s3(server.endpoint, plan) as proxy:
        refused = S3Store(BUCKET, prefix, proxy.endpoint, attempts=2)
        with pytest.raises(StoreError, match="InternalError"):
            put(refused, "large", bytes(PART_BYTES + 1))
    assert list(store.keys("")) == []
    assert store.sweep("", older=-1) == 0


def test_a_sweep_aborts_what_a_dead_writer_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over rclone, as moto's uploads are all from 2010."""
    (tmp_path / "data" / BUCKET).mkdir(parents=True)
    with rclone_s3(tmp_path / "data") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        for key in ("a/large", "b/large"):
            server.client().create_multipart_upload(Bucket=BUCKET, Key=f"mine/{key}")
        store = S3Store(BUCKET, "mine", server.endpoint)
        assert store.sweep("", older=60) == 0
        assert store.sweep("a/", older=-1) == 1
        assert store.sweep("", older=-1) == 1


def test_a_silent_server_is_given_up(server: S3Server, prefix: str) -> None:
    with faulty_s3(server.endpoint, lambda method, path: Fault.SILENT) as proxy:
        store = S3Store(BUCKET, prefix, proxy.endpoint, attempts=2, read_seconds=0.5)
        with pytest.raises(StoreError, match="ReadTimeoutError"):
            store.get("key")
    assert proxy.faults == [Fault.SILENT] * 2


def test_one_silent_answer_is_asked_for_again(
    server: S3Server, prefix: str, store: S3Store
) -> None:
    put(store, "key", b"data")
    with faulty_s3(server.endpoint, first("GET", Fault.SILENT)) as proxy:
        assert S3Store(BUCKET, prefix, proxy.endpoint, read_seconds=2).get("key") == b"data"


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1])
@pytest.mark.parametrize("to_file", [False, True])
def test_a_changed_byte_is_noticed_and_asked_for_again(
    server: S3Server,
    prefix: str,
    store: S3Store,
    noted: Noted,
    tmp_path: Path,
    size: int,
    to_file: bool,
) -> None:
    data, path = os.urandom(size), tmp_path / "fetched"
    put(store, "key", data)
    with faulty_s3(server.endpoint, first("GET", Fault.CHANGED)) as proxy:
        shaken = S3Store(BUCKET, prefix, proxy.endpoint)
        if to_file:
            shaken.fetch("key", path)
        else:
            path.write_bytes(shaken.get("key"))
    assert path.read_bytes() == data
    assert proxy.faults == [Fault.CHANGED, Fault.NONE]
    assert noted.troubles == {("store", "FlexibleChecksumError"): 1}


def test_an_object_that_always_comes_changed_is_none(
    server: S3Server, prefix: str, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.retry, "wait", wait_none())
    put(store, "key", b"data")
    with faulty_s3(server.endpoint, lambda method, path: Fault.CHANGED) as proxy:
        shaken = S3Store(BUCKET, prefix, proxy.endpoint)
        with pytest.raises(StoreError, match=r"unchanged.*FlexibleChecksumError"):
            shaken.get("key")


def test_the_probe_is_not_misled_by_errors(server: S3Server, prefix: str, store: S3Store) -> None:
    with faulty_s3(server.endpoint, one_in(5, Fault.REFUSED)) as proxy:
        assert honours_conditions(S3Store(BUCKET, prefix, proxy.endpoint), "")
    assert list(store.keys("")) == []
