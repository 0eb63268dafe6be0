"""Local copies of job files in a bucket or from a pipe, and what is said about them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.assemble.stores import open_store, reach_store
from pipeline.errors import ConfigError, JobFileError, NoJobFile
from pipeline.jobfile.reader import FORMATS
from pipeline.jobfile.reading import LIMIT, SUFFIX, Reading
from pipeline.jobfile.rows import suffix_of
from pipeline.ports import Store
from pipeline.settings import Settings
from pipeline.tabular.files import Unreadable, open_text
from pipeline.tabular.rows import BOM

PIECE = 1024 * 1024
SPARED = 256 * 1024 * 1024
"""Bytes of the disk that stay free, however much a pipe brings."""


@contextmanager
def at_hand(address: str, settings: Settings) -> Iterator[Path]:
    """The local path of a job file while the block runs. A file at s3:// keeps its name; a pipe or
    the standard input ("-") is copied to a file.

    Raises JobFileError if there is none, StoreError if the store fails.
    """
    if address.startswith("s3://"):
        with tempfile.TemporaryDirectory(prefix="pressrun-jobs-") as folder:
            place, _, name = address.rpartition("/")
            if not name or place == "s3:/":
                raise NoJobFile(f"{address} names no file in a bucket.")
            fetched, store = Path(folder, name), _bucket(place, settings)
            try:
                store.fetch(name, fetched)
            except KeyError:
                raise NoJobFile(f"Looked for {address}.") from None
            with suppress(KeyError):
                Path(folder, name + SUFFIX).write_bytes(store.get(name + SUFFIX, LIMIT))
            yield fetched
        return
    path = Path("/dev/stdin" if address == "-" else address)
    if path.is_fifo() or str(path).startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/")):
        with tempfile.TemporaryDirectory(prefix="pressrun-jobs-") as folder:
            yield _spooled(path, Path(folder))
    else:
        yield path


@contextmanager
def read_as(address: str, path: Path, reading: Reading, settings: Settings) -> Iterator[str]:
    """Write how to read a job file beside it; answers where. Taken back if the block fails.

    Raises ConfigError for a pipe and for what the format has not, JobFileError and StoreError where
    nothing can be written.
    """
    if not address.startswith("s3://") and Path(address) != path:
        raise ConfigError("Beside a pipe nothing can be remembered; save its rows as a file.")
    if reason := reading.without_effect(path):
        raise ConfigError(f"--{reason}")
    beside = path.with_name(path.name + SUFFIX)
    try:
        before = beside.read_bytes() if beside.exists() else None
        beside.write_text(reading.toml(), encoding="utf-8")
    except OSError as error:
        raise JobFileError(
            f"{beside}: {error.strerror}; it is to hold:\n{reading.toml()}"
        ) from error
    try:
        yield address + SUFFIX
    except BaseException:
        if before is None:
            beside.unlink()
        else:
            beside.write_bytes(before)
        raise
    if address.startswith("s3://"):
        place, _, name = address.rpartition("/")
        data = beside.read_bytes()
        _bucket(place, settings).put(name + SUFFIX, data, content_type="application/toml")


def _bucket(place: str, settings: Settings) -> Store:
    there = settings.model_copy(update={"store": place})
    reach_store(there)
    return open_store(there)


def _spooled(path: Path, folder: Path) -> Path:
    """A copy of what a pipe brings, with the suffix of its format, guessed from its first bytes if
    the pipe's own name has none.
    """
    spool = folder / "spool"
    try:
        with path.open("rb") as source, spool.open("wb") as file:
            while piece := source.read(PIECE):
                if shutil.disk_usage(folder).free < SPARED:
                    raise JobFileError(
                        f"{path} brings more than the disk of {folder.parent} holds."
                    )
                file.write(piece)
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
    if suffix_of(path) in FORMATS:
        return spool.rename(folder / path.name)
    try:
        return spool.rename(folder / f"stdin{_suffix(spool)}")
    except Unreadable as error:
        raise JobFileError(f"{path}: {error}.") from error


def _suffix(path: Path) -> str:
    """The suffix of a file's format, by its first bytes. Raises Unreadable."""
    with path.open("rb") as content:
        start = content.read(64).removeprefix(BOM)
    if start.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith(b"PK"):
        return ".xlsx"
    if start.startswith(b"\x1f\x8b"):
        packed = path.rename(path.with_suffix(".gz"))
        with open_text(packed) as text:
            start = text.peek(64).removeprefix(BOM)
        packed.rename(path)
        return ".jsonl.gz" if start.lstrip()[:1] in (b"{", b"[") else ".csv.gz"
    return ".jsonl" if start.lstrip()[:1] in (b"{", b"[") else ".csv"
