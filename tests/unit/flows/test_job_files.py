"""A job file is read where it lies, or brought here whole."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import job_files
from flows.job_files import at_hand
from pipeline.errors import JobFileError, NoJobFile
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile
from pipeline.settings import Settings, load_settings
from tests.harness.servers import moto_s3

CSV = b"keywords\nred circle\n"
JSONL = b'\xef\xbb\xbf\n{"keywords": "red circle"}\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"))


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"keywords": ["red circle"]}), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@contextmanager
def pipe(content: bytes) -> Iterator[str]:
    """The address of a pipe that brings this, as a shell's `<(…)` gives it."""
    source, target = os.pipe()

    def write() -> None:
        with os.fdopen(target, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield f"/dev/fd/{source}"
    finally:
        os.close(source)
        writer.join()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: CSV, "stdin.csv"),
        (lambda: JSONL, "stdin.jsonl"),
        (parquet, "stdin.parquet"),
        (lambda: CSV + b"blue star\n" * 500_000, "stdin.csv"),
    ],
)
def test_a_pipe_is_read_as_often_as_need_be(
    settings: Settings, tmp_path: Path, make: Callable[[], bytes], name: str
) -> None:
    content = make()
    (tmp_path / "same").write_bytes(content)
    with pipe(content) as address, at_hand(address, settings) as path:
        assert path.name == name
        assert file_digest(path) == file_digest(tmp_path / "same")
        for _ in range(2):
            first = next(read_jobs(path, Profile.load("shapes"), Overrides()))
            assert first.keywords == "red circle"
    assert not path.parent.exists()


def test_a_named_pipe_keeps_its_name(settings: Settings, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "jobs.jsonl")
    writer = threading.Thread(target=(tmp_path / "jobs.jsonl").write_bytes, args=[JSONL])
    writer.start()
    with at_hand(str(tmp_path / "jobs.jsonl"), settings) as path:
        assert (path.name, path.read_bytes()) == ("jobs.jsonl", JSONL)
    writer.join()


def test_a_pipe_never_fills_the_disk(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_files, "SPARED", 2**60)
    with (
        pytest.raises(JobFileError, match="brings more than the disk"),
        pipe(CSV) as address,
        at_hand(address, settings),
    ):
        pass


def test_a_file_is_read_where_it_lies(settings: Settings, tmp_path: Path) -> None:
    with at_hand(str(tmp_path / "jobs.csv"), settings) as path:
        assert path == tmp_path / "jobs.csv"


@pytest.mark.parametrize("name", ["missing.csv", "missing", "."])
def test_a_missing_file_is_named_with_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NoJobFile) as missing:
        read_jobs(tmp_path / name, Profile.load("shapes"), Overrides())
    assert f"Looked for {tmp_path / name}." in str(missing.value)
    assert "submit it again" not in str(missing.value)


def test_a_file_in_a_bucket(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto_s3("sheets") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        there = load_settings(store=settings.store, s3_endpoint_url=server.endpoint)
        server.client().put_object(Bucket="sheets", Key="may/jobs.csv", Body=CSV)
        with at_hand("s3://sheets/may/jobs.csv", there) as path:
            assert (path.name, path.read_bytes()) == ("jobs.csv", CSV)
        for address in ("s3://sheets/may/other.csv", "s3://sheets/may/", "s3://sheets"):
            with pytest.raises(NoJobFile, match=address), at_hand(address, there):
                pass
