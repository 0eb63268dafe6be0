"""What every Store promises, over a folder, moto's S3 and rclone's S3."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.errors import StoreError
from pipeline.ports import Store
from pipeline.storing.folder import FolderStore
from pipeline.storing.s3 import S3Store
from tests.servers import S3Server, ServerMissing, rclone_s3

WRITERS = 32
BUCKET = "bucket"


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = S3Server(f"http://{host}:{port}", "MOTOTESTKEY", "moto-secret")
    _client(found).create_bucket(Bucket=BUCKET)
    yield found
    server.stop()


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("rclone") / "data"
    (folder / BUCKET).mkdir(parents=True)
    try:
        with rclone_s3(folder) as server:
            yield server
    except ServerMissing:
        if "CI" in os.environ:
            raise
        pytest.skip("rclone is not installed")


def _client(server: S3Server):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


STORES = ["folder", "moto", pytest.param("rclone", marks=pytest.mark.slow)]


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of the kind that the test asks for."""
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    server: S3Server = request.getfixturevalue(request.param)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return S3Store(BUCKET, f"stores/{tmp_path.name}", server.endpoint)


every_store = pytest.mark.parametrize("store", STORES, indirect=True)
# rclone's server ignores If-None-Match
creates_once = pytest.mark.parametrize("store", STORES[:2], indirect=True)


def put(store: Store, key: str, data: bytes = b"x", **options: bool) -> bool:
    return store.put(key, data, content_type="application/octet-stream", **options)


@every_store
def test_gives_back_what_was_put(store: Store) -> None:
    data = bytes(range(256)) * 1000
    assert put(store, "a/b/c.bin", data)
    assert store.get("a/b/c.bin") == data


@every_store
def test_keeps_an_empty_blob(store: Store) -> None:
    put(store, "empty", b"")
    assert store.get("empty") == b""


@every_store
def test_put_replaces(store: Store) -> None:
    put(store, "key", b"first")
    assert put(store, "key", b"second")
    assert store.get("key") == b"second"


@creates_once
def test_put_new_leaves_what_is_there(store: Store) -> None:
    assert put(store, "key", b"first", new=True)
    assert not put(store, "key", b"second", new=True)
    assert store.get("key") == b"first"


@creates_once
def test_one_of_many_creates_wins(store: Store) -> None:
    blobs = [b"%d" % number for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda blob: put(store, "records/one.json", blob, new=True), blobs))
    assert won.count(True) == 1
    assert store.get("records/one.json") == blobs[won.index(True)]
    assert list(store.keys("")) == ["records/one.json"]


@every_store
def test_get_of_a_missing_key_is_a_key_error(store: Store) -> None:
    put(store, "a/b")
    for key in ("nothing", "a", "a/b/c", "a/bb"):
        with pytest.raises(KeyError):
            store.get(key)


@every_store
def test_delete_removes_and_forgives(store: Store) -> None:
    put(store, "a/b")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/there")
    assert list(store.keys("")) == []


@every_store
def test_keys_are_sorted_as_whole_strings(store: Store) -> None:
    keys = sorted(["a", "a-b", "a.b/c", "a/b", "a/b.c", "a/c/d", "aa/é", "b/Z", "b/a"])
    keys.remove("a")  # a folder cannot hold both `a` and `a/b`
    for key in reversed(keys):
        put(store, key)
    assert list(store.keys("")) == keys


@every_store
def test_keys_begin_with_the_prefix(store: Store) -> None:
    for key in ("runs/a/1", "runs/a/2", "runs/ab/1", "runs/b/1", "other"):
        put(store, key)
    assert list(store.keys("runs/a")) == ["runs/a/1", "runs/a/2", "runs/ab/1"]
    assert list(store.keys("runs/a/")) == ["runs/a/1", "runs/a/2"]
    assert list(store.keys("runs/a/2")) == ["runs/a/2"]
    assert list(store.keys("runs/c")) == []
    assert list(store.keys("none/at/all/")) == []


@every_store
def test_folders_are_named_once(store: Store) -> None:
    for key in ("runs/b/1", "runs/a/1", "runs/a/2/3", "runs/file", "other/c/1"):
        put(store, key)
    assert list(store.folders("runs/")) == ["a", "b"]
    assert list(store.folders("")) == ["other", "runs"]
    assert list(store.folders("nothing/")) == []


@every_store
@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "a/", "a\\b", "a\0b", "./a", "a/.b"]
)
def test_refuses_keys_that_could_leave_it(store: Store, key: str) -> None:
    for call in (lambda: put(store, key), lambda: store.get(key), lambda: store.delete(key)):
        with pytest.raises(StoreError, match="is not a key"):
            call()


@every_store
@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "..", "/etc/", "a\\"])
def test_refuses_to_list_outside(store: Store, prefix: str) -> None:
    with pytest.raises(StoreError):
        list(store.keys(prefix))


@every_store
def test_many_threads_share_it(store: Store) -> None:
    def turn(number: int) -> bytes:
        key = f"folder-{number % 3}/{number}"
        put(store, key, key.encode())
        return store.get(key)

    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(turn, range(96)))
    assert found == [f"folder-{number % 3}/{number}".encode() for number in range(96)]
    assert len(list(store.keys("folder-"))) == 96


@every_store
def test_address_names_the_key(store: Store) -> None:
    assert store.address("runs/a/image.png").endswith("/runs/a/image.png")


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES[1:], indirect=True)
def test_lists_more_than_a_page(store: Store) -> None:
    keys = [f"records/{number:05d}" for number in range(1005)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda key: put(store, key), keys))
    assert list(store.keys("records/")) == keys
