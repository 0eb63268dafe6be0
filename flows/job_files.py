"""Job files that lie elsewhere or can be read only once, brought here to be read."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.assemble import open_store, reach_store
from pipeline.errors import JobFileError, NoJobFile
from pipeline.jobfile.reader import FORMATS
from pipeline.jobfile.rows import suffix_of
from pipeline.settings import Settings
from pipeline.tabular.rows import BOM

PIECE = 1024 * 1024
SPARED = 256 * 1024 * 1024
"""Bytes of the disk that a pipe without an end leaves free."""


@contextmanager
def at_hand(address: str, settings: Settings) -> Iterator[Path]:
    """The file at a path or an s3:// address, under its own name, while the block runs; what a pipe
    or the standard input ("-") brings, in a file of its own.

    Raises JobFileError where there is none, StoreError where the store fails.
    """
    if address.startswith("s3://"):
        with tempfile.TemporaryDirectory(prefix="pressrun-jobs-") as folder:
            yield _fetched(address, Path(folder), settings)
    elif _is_read_once(path := Path("/dev/stdin" if address == "-" else address)):
        with tempfile.TemporaryDirectory(prefix="pressrun-jobs-") as folder:
            yield _spooled(path, Path(folder))
    else:
        yield path


def _fetched(address: str, folder: Path, settings: Settings) -> Path:
    place, _, name = address.rpartition("/")
    if not name or place == "s3:/":
        raise NoJobFile(f"{address} names no file in a bucket.")
    there = settings.model_copy(update={"store": place})
    reach_store(there)
    try:
        open_store(there).fetch(name, folder / name)
    except KeyError:
        raise NoJobFile(f"Looked for {address}.") from None
    return folder / name


def _is_read_once(path: Path) -> bool:
    inputs = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
    return str(path).startswith(inputs) or path.is_fifo()


def _spooled(path: Path, folder: Path) -> Path:
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
    named = path.name if suffix_of(path) in FORMATS else f"stdin{_suffix_for(spool)}"
    return spool.rename(folder / named)


def _suffix_for(file: Path) -> str:
    """The suffix of what a file holds, as far as its first bytes tell."""
    with file.open("rb") as content:
        start = content.read(64).removeprefix(BOM)
    if start.startswith(b"PAR1"):
        return ".parquet"
    return ".jsonl" if start.lstrip()[:1] in (b"{", b"[") else ".csv"
