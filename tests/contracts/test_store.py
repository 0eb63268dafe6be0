"""What every Store promises, over a folder, moto's S3 and rclone's S3."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import StoreError, TooLarge
from pipeline.ports import Store
from pipeline.storage.folder import FolderStore
from pipeline.storage.probe import honours_conditions
from pipeline.storage.s3 import S3Store
from pipeline.storage.s3_upload import PART_BYTES
from tests.harness.servers import S3Server, ServerMissing, moto_s3, rclone_s3

WRITERS = 32
BUCKET = "bucket"
CONDITIONAL = {"folder": True, "moto": True, "rclone": False}


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with moto_s3(BUCKET) as server:
        yield server


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


STORES = ["folder", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("moto", "rclone"))]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Which implementation the test runs over."""
    return str(request.param)


@pytest.fixture
def open_store(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], Store]:
    """Opens the same store, with conditions or without."""
    if kind == "folder":
        return lambda conditional: FolderStore(tmp_path / "store", conditional=conditional)
    server: S3Server = request.getfixturevalue(kind)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    prefix = f"stores/{tmp_path.name}"
    return lambda conditional: S3Store(BUCKET, prefix, server.endpoint, conditional=conditional)


@pytest.fixture
def store(kind: str, open_store: Callable[[bool], Store]) -> Store:
    """An empty store, opened as its server needs it."""
    return open_store(CONDITIONAL[kind])


every_store = pytest.mark.parametrize("kind", STORES, indirect=True)


def put(store: Store, key: str, data: bytes = b"x", **options: bool) -> bool:
    return store.put(key, data, content_type="application/octet-stream", **options)


@every_store
def test_gives_back_what_was_put(store: Store) -> None:
    data = bytes(range(256)) * 1000
    assert put(store, "a/b/c.bin", data)
    assert store.get("a/b/c.bin") == data


@every_store
def test_fetches_a_blob_into_a_file(store: Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    put(store, "a/b.csv", data)
    store.fetch("a/b.csv", tmp_path / "here.csv")
    assert (tmp_path / "here.csv").read_bytes() == data
    with pytest.raises(KeyError):
        store.fetch("a/c.csv", tmp_path / "there.csv")


@every_store
def test_moves_a_blob(store: Store) -> None:
    put(store, "a/b.csv", b"first")
    put(store, "c/d/e f.csv", b"second")
    assert store.move("a/b.csv", "c/d/e f.csv")
    assert not store.move("a/b.csv", "c/d/e f.csv")
    assert store.get("c/d/e f.csv") == b"first"
    assert list(store.keys("")) == ["c/d/e f.csv"]


@every_store
def test_keeps_an_empty_blob(store: Store) -> None:
    put(store, "empty", b"")
    assert store.get("empty") == b""


@every_store
def test_put_replaces(store: Store) -> None:
    put(store, "key", b"first")
    assert put(store, "key", b"second")
    assert store.get("key") == b"second"


@every_store
def test_put_new_leaves_what_is_there(store: Store) -> None:
    assert put(store, "key", b"first", new=True)
    assert not put(store, "key", b"second", new=True)
    assert store.get("key") == b"first"


@every_store
def test_put_new_looks_first_without_conditions(open_store: Callable[[bool], Store]) -> None:
    store = open_store(False)
    assert put(store, "key", b"first", new=True)
    assert not put(store, "key", b"second", new=True)
    assert put(store, "key", b"third")
    assert store.get("key") == b"third"


@pytest.mark.parametrize("kind", STORES[:2], indirect=True)
def test_one_of_many_creates_wins(store: Store) -> None:
    blobs = [b"%d" % number for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda blob: put(store, "records/one.json", blob, new=True), blobs))
    assert won.count(True) == 1
    assert store.get("records/one.json") == blobs[won.index(True)]
    assert list(store.keys("")) == ["records/one.json"]


@every_store
def test_the_probe_tells_who_honours_conditions(
    kind: str, open_store: Callable[[bool], Store]
) -> None:
    store = open_store(True)
    assert honours_conditions(store, "runs/a/") == CONDITIONAL[kind]
    assert list(store.keys("")) == []


@every_store
def test_keeps_a_blob_of_several_parts(store: Store) -> None:
    data = os.urandom(PART_BYTES + 1)
    assert put(store, "large", data, new=True)
    assert store.get("large") == data
    assert not put(store, "large", bytes(PART_BYTES + 1), new=True)
    assert put(store, "large", data[::-1])
    assert store.get("large") == data[::-1]
    assert store.sweep("", older=-1) == 0


@every_store
def test_get_of_a_missing_key_is_a_key_error(store: Store) -> None:
    put(store, "a/b")
    for key in ("nothing", "a", "a/b/c", "a/bb"):
        with pytest.raises(KeyError):
            store.get(key)


@every_store
def test_what_is_too_large_is_not_read(store: Store) -> None:
    store.put("a/large.bin", b"x" * 5_000, content_type="")
    assert len(store.get("a/large.bin", 5_000)) == 5_000
    with pytest.raises(TooLarge, match=r"large\.bin has 5000 bytes, over 4999"):
        store.get("a/large.bin", 4_999)


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
def test_listing_tells_size_and_age(store: Store) -> None:
    before = time.time()
    for key, data in (("a/1", b"x" * 700), ("a/2", b""), ("b", b"x")):
        put(store, key, data)
    blobs = list(store.listing("a/"))
    # S3 counts whole seconds
    oldest = time.time() - before + 2
    assert [(blob.key, blob.bytes) for blob in blobs] == [("a/1", 700), ("a/2", 0)]
    assert all(0 <= blob.age <= oldest for blob in blobs)
    assert [blob.key for blob in store.listing("")] == list(store.keys(""))


@every_store
def test_age_grows_until_the_blob_is_written_again(store: Store) -> None:
    put(store, "key")
    time.sleep(3)
    (aged,) = store.listing("key")
    assert aged.age >= 2
    put(store, "key")
    assert next(store.listing("key")).age < aged.age


@pytest.mark.parametrize("kind", [STORES[0], STORES[2]], indirect=True)
@pytest.mark.parametrize("fast", [7200, -7200])
def test_ages_are_told_by_the_clock_of_the_store(
    store: Store, fast: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a/key")
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + fast)
    (blob,) = store.listing("a/")
    assert 0 <= blob.age < 60


@every_store
def test_tells_which_blobs_there_are(store: Store) -> None:
    put(store, "a/b", b"")
    assert store.has("a/b")
    assert not store.has("a")
    assert not store.has("a/b/c")
    assert not store.has("c")


@every_store
def test_a_sweep_takes_no_blob(store: Store) -> None:
    put(store, "a/key")
    assert store.sweep("a/", older=-1) == 0
    assert store.sweep("none/", older=-1) == 0
    assert list(store.keys("")) == ["a/key"]


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
    for call in (lambda: put(store, key), lambda: store.get(key), lambda: store.has(key)):
        with pytest.raises(StoreError, match="is not a key"):
            call()


@every_store
@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "..", "/etc/", "a\\"])
def test_refuses_to_list_outside(store: Store, prefix: str) -> None:
    for call in (lambda: list(store.keys(prefix)), lambda: store.sweep(prefix, older=-1)):
        with pytest.raises(StoreError):
            call()


@every_store
def test_many_threads_share_it(store: Store) -> None:
    def device_lock(number: int) -> bytes:
        key = f"folder-{number % 3}/{number}"
        put(store, key, key.encode())
        return store.get(key)

    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(device_lock, range(96)))
    assert found == [f"folder-{number % 3}/{number}".encode() for number in range(96)]
    assert len(list(store.keys("folder-"))) == 96


@every_store
def test_address_names_the_key(store: Store) -> None:
    assert store.address("runs/a/image.png").endswith("/runs/a/image.png")


@pytest.mark.slow
@pytest.mark.parametrize("kind", STORES[1:], indirect=True)
def test_lists_more_than_a_page(store: Store) -> None:
    if isinstance(store, S3Store):
        store._client.meta.events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": 50}
        )
    keys = [f"records/{number:05d}" for number in range(105)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda key: put(store, key), keys))
    assert list(store.keys("records/")) == keys
