"""Exports as folders of images: shards for WebDataset, and Hugging Face's ImageFolder."""

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

from flows.runs.export.lines import Line, flat

Entry = tuple[Line, str, bytes]
"""The line of an image's job, the suffix of its file, and the file's content."""

SAMPLES = 5000
BYTES = 500 * 2**20
"""A shard ends at SAMPLES samples, or once its images have BYTES bytes."""
MARK = ".pressrun.json"
NESTED = ("candidates", "sources", "notices", "models", "meta")

_NAMES = {
    "webdataset": re.compile(r"\d{6}\.tar"),
    "imagefolder": re.compile(r"metadata\.jsonl|[0-9a-f]{2}"),
}


def write_webdataset(folder: Path, run: str, entries: Iterable[Entry]) -> int:
    """Write tar files of samples, each an image, its record and its text; returns their number.

    Equal entries give equal files.
    """
    _begin(folder, run, "webdataset")
    number = 0
    for number, shard in enumerate(_shards(entries), 1):
        path = folder / f"{number - 1:06}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for line, suffix, image in shard:
                _add(tar, f"{line['job_id']}.{suffix}", image)
                _add(tar, f"{line['job_id']}.json", _json(line))
                _add(tar, f"{line['job_id']}.txt", (line["text"] or "").encode())
    return number


def write_imagefolder(folder: Path, run: str, entries: Iterable[Entry]) -> None:
    """Write images in subfolders, and `metadata.jsonl` with the name and the line of each.

    Nested values are JSON strings, because readers infer types from the first lines.
    """
    _begin(folder, run, "imagefolder")
    with (folder / "metadata.jsonl").open("wb") as metadata:
        for line, suffix, image in entries:
            name = f"{line['job_id'][:2]}/{line['job_id']}.{suffix}"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(image)
            metadata.write(_json({"file_name": name} | flat(line, NESTED)) + b"\n")


def is_folder_of(run: str, form: str, folder: Path) -> bool:
    """True for an empty folder, or one with an export of the run in this form and nothing else."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    try:
        mark = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    foreign = [name for name in names - {MARK} if not _NAMES[form].fullmatch(name)]
    return mark == _mark(run, form) and not foreign


def _begin(folder: Path, run: str, form: str) -> None:
    folder.mkdir()
    (folder / MARK).write_bytes(_json(_mark(run, form)))


def _mark(run: str, form: str) -> dict[str, str]:
    return {"run": run, "to": form}


def _shards(entries: Iterable[Entry]) -> Iterator[Iterator[Entry]]:
    """The entries by shard; read each shard to its end before the next."""
    rest = iter(entries)
    for first in rest:
        yield _shard(first, rest)


def _shard(first: Entry, rest: Iterator[Entry]) -> Iterator[Entry]:
    yield first
    samples, size = 1, len(first[2])
    while samples < SAMPLES and size < BYTES and (entry := next(rest, None)):
        yield entry
        samples, size = samples + 1, size + len(entry[2])


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # a TarInfo's default time, owner and mode are constant, so equal entries give equal files
    info = tarfile.TarInfo(name)
    info.size = len(data)
    with closing(BytesIO(data)) as file:
        tar.addfile(info, file)


def _json(value: Line) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
