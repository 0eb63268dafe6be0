"""A folder as a store: whole files or none."""

import errno
import os
import time
import uuid
from itertools import islice
from pathlib import Path

import pytest

from pipeline.assemble.stores import open_store_to_commit
from pipeline.errors import StoreError, StoreFull, Unconditional
from pipeline.settings import load_settings
from pipeline.storage.folder import FolderStore
from pipeline.storage.probe import honours_conditions


def test_a_write_that_fails_leaves_the_old_blob_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    store.put("a/key", b"old", content_type="x")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match="No space left"):
        store.put("a/key", b"new", content_type="x")
    assert store.get("a/key") == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["key"]


def test_a_file_left_half_written_is_no_blob(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/key", b"x", content_type="x")
    (tmp_path / "a" / ".half").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_bytes(b"")
    assert list(store.keys("")) == ["a/key"]


def test_a_fast_clock_makes_no_half_written_file_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = tmp_path / f".{uuid.uuid4().hex}"
    draft.write_bytes(b"")
    fast = time.time() + 7200
    monkeypatch.setattr("time.time", lambda: fast)
    assert FolderStore(tmp_path).sweep("", older=3600) == 0
    assert list(tmp_path.iterdir()) == [draft]


def test_a_file_system_without_hard_links_is_used_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(store=str(tmp_path / "store"))
    assert open_store_to_commit(settings).conditional

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store_to_commit(settings)
    assert not store.conditional
    assert store.put("key", b"x", content_type="x", new=True)
    assert not store.put("key", b"y", content_type="x", new=True)
    assert list(store.keys("")) == ["key"]


def test_files_are_readable_by_the_others_that_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        FolderStore(tmp_path).put("key", b"x", content_type="x")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o644


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"x", content_type="x")
    with pytest.raises(StoreError, match="cannot write"):
        store.put("a/b", b"x", content_type="x")


def test_keys_come_before_later_folders_are_read(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/1", b"x", content_type="x")
    store.put("b/1", b"x", content_type="x")
    keys = store.keys("")
    assert list(islice(keys, 1)) == ["a/1"]
    store.put("b/2", b"x", content_type="x")
    assert list(keys) == ["b/1", "b/2"]


def test_an_empty_store_has_no_keys(tmp_path: Path) -> None:
    assert list(FolderStore(tmp_path / "none").keys("")) == []


def test_address_does_not_depend_on_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FolderStore(Path("out"))
    monkeypatch.chdir("/")
    assert store.address("a/b") == str(tmp_path / "out" / "a" / "b")


def test_a_file_system_without_hard_links_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = FolderStore(tmp_path)
    assert store.put("key", b"x", content_type="x")
    with pytest.raises(Unconditional, match="no hard links"):
        store.put("other", b"x", content_type="x", new=True)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert not honours_conditions(store, "")
    looking = FolderStore(tmp_path, conditional=False)
    assert looking.put("other", b"x", content_type="x", new=True)
    assert not looking.put("other", b"y", content_type="x", new=True)


def draft(folder: Path, seconds_old: float) -> Path:
    """What a writer that was killed leaves, and how long ago."""
    path = folder / f".{uuid.uuid4().hex}"
    path.write_bytes(b"half")
    written = time.time() - seconds_old
    os.utime(path, (written, written))
    return path


def test_a_sweep_removes_old_drafts_and_nothing_else(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/b/key", b"x", content_type="x")
    hidden = tmp_path / "a" / ".hidden"
    hidden.mkdir()
    kept = [draft(tmp_path / "a" / "b", 5), draft(tmp_path, 500), draft(hidden, 500)]
    (tmp_path / "a" / ".DS_Store").write_bytes(b"")
    os.utime(tmp_path / "a" / ".DS_Store", (0, 0))
    gone = [draft(tmp_path / "a" / "b", 500), draft(tmp_path / "a", 500)]
    assert store.sweep("a/", older=60) == 2
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert (tmp_path / "a" / ".DS_Store").exists()
    assert store.get("a/b/key") == b"x"


def test_age_is_that_of_the_file_and_never_below_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for key, seconds in (("new", -500), ("old", 500)):
        store.put(key, b"x", content_type="x")
        os.utime(tmp_path / key, (time.time() - seconds,) * 2)
    new, old = store.listing("")
    assert new.age == 0
    assert 499 <= old.age < 560


def test_a_blob_deleted_while_listing_is_left_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for key in ("a", "b", "c"):
        store.put(key, b"x", content_type="x")
    blobs = store.listing("")
    assert next(blobs).key == "a"
    store.delete("b")
    assert [blob.key for blob in blobs] == ["c"]
