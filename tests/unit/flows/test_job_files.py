"""A job file is read where it lies, or brought here whole."""

import gzip
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import job_files
from flows.job_files import at_hand, read_as
from pipeline.errors import ConfigError, JobFileError, NoJobFile
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.jobfile.reading import SUFFIX, Reading
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


def workbook() -> bytes:
    made, sink = openpyxl.Workbook(), BytesIO()
    made.active.append(["Prompt"])
    made.active.append(["red circle"])
    made.save(sink)
    return sink.getvalue()


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
        (workbook, "stdin.xlsx"),
        (lambda: gzip.compress(CSV), "stdin.csv.gz"),
        (lambda: gzip.compress(JSONL), "stdin.jsonl.gz"),
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


def test_a_damaged_file_from_a_pipe_is_one_sentence(settings: Settings) -> None:
    with (
        pytest.raises(JobFileError, match=r"/dev/fd/.*it is damaged or cut short"),
        pipe(b"\x1f\x8b\x08no gzip") as address,
        at_hand(address, settings),
    ):
        pass


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


def test_what_is_said_beside_a_file_in_a_bucket(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, address = Reading(columns={"Product": "keywords"}), "s3://sheets/may/jobs.csv"
    with moto_s3("sheets") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        there = load_settings(store=settings.store, s3_endpoint_url=server.endpoint)
        server.client().put_object(Bucket="sheets", Key="may/jobs.csv", Body=b"Product\nred\n")
        with (
            at_hand(address, there) as path,
            read_as(address, path, reading, there) as beside,
        ):
            assert next(read_jobs(path, Profile.load("shapes"), Overrides())).keywords == "red"
        assert beside == address + SUFFIX
        with at_hand(address, there) as path:
            assert Reading.beside(path) == reading


def test_what_did_not_help_is_not_remembered(settings: Settings, tmp_path: Path) -> None:
    path, reading = tmp_path / "jobs.csv", Reading(encoding="cp1252")
    beside = tmp_path / f"jobs.csv{SUFFIX}"
    path.write_bytes(CSV)
    with pytest.raises(JobFileError), read_as(str(path), path, reading, settings):
        raise JobFileError
    assert not beside.exists()
    with read_as(str(path), path, reading, settings):
        pass
    with (
        pytest.raises(JobFileError),
        read_as(str(path), path, Reading(columns={"A": "id"}), settings),
    ):
        raise JobFileError
    assert Reading.beside(path) == reading
    with pytest.raises(ConfigError, match="pipe"), read_as("-", path, reading, settings):
        pass


@pytest.mark.parametrize(
    ("name", "reading", "reason"),
    [
        ("jobs.csv", Reading(sheet="A"), "--sheet is for workbooks"),
        ("jobs.jsonl.gz", Reading(sheet="A"), "--sheet is for workbooks"),
        ("jobs.xlsx", Reading(encoding="cp1252"), "--encoding is for text files"),
        ("jobs.parquet", Reading(encoding="cp1252"), "--encoding is for text files"),
    ],
)
def test_what_a_format_has_not_is_refused(
    settings: Settings, tmp_path: Path, name: str, reading: Reading, reason: str
) -> None:
    path = tmp_path / name
    with (
        pytest.raises(ConfigError, match=f"{reason}.*{name} is none"),
        read_as(str(path), path, reading, settings),
    ):
        pass
    assert not (tmp_path / f"{name}{SUFFIX}").exists()


def test_a_folder_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "none" / "jobs.csv"
    with (
        pytest.raises(JobFileError, match='it is to hold:\nencoding = "cp1252"'),
        read_as(str(path), path, Reading(encoding="cp1252"), settings),
    ):
        pass
