"""Local copies of job files in a bucket or from a pipe."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.assemble.stores import open_store, reach_store
from pipeline.errors import JobFileError, NoJobFile
from pipeline.jobfile.reader import FORMATS
from pipeline.jobfile.rows import suffix_of
from pipeline.settings import Settings
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
            there = settings.model_copy(update={"store": place})
            reach_store(there)
            fetched = Path(folder, name)
            try:
                open_store(there).fetch(name, fetched)
            except KeyError:
                raise NoJobFile(f"Looked for {address}.") from None
            yield fetched
        return
    path = Path("/dev/stdin" if address == "-" else address)
    if path.is_fifo() or str(path).startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/")):
        with tempfile.TemporaryDirectory(prefix="pressrun-jobs-") as folder:
            yield _spooled(path, Path(folder))
    else:
        yield path


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
    with spool.open("rb") as content:
        start = content.read(64).removeprefix(BOM)
    if start.startswith(b"PAR1"):
        suffix = ".parquet"
    else:
        suffix = ".jsonl" if start.lstrip()[:1] in (b"{", b"[") else ".csv"
    return spool.rename(folder / f"stdin{suffix}")
