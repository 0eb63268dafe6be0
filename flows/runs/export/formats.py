"""The formats of exports: JSONL, Parquet, shards for WebDataset, and Hugging Face's ImageFolder."""

import json
import re
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.record import Outcome
from pipeline.records.columns import Columns, json_text, schema_of, table_of

Line = dict[str, Any]
Entry = tuple[Line, bytes]
"""The line of a job with an image, and the image's file."""

ROWS, PARTS = 250, 20
"""Rows that become a table at once, and the number of these tables in a row group."""
LONGEST_LINE = 2**20
RUN = b"pressrun.run"
SAMPLES = 5000
BYTES = 500 * 2**20
"""A shard ends at SAMPLES samples, or once its images have BYTES bytes."""
MARK = ".pressrun.json"
FOLDER_NAMES = {
    "webdataset": re.compile(r"\d{6}\.tar"),
    "imagefolder": re.compile(r"metadata\.jsonl|[0-9a-f]{2}"),
}


def write_jsonl(path: Path, lines: Iterable[Line]) -> None:
    """Write one JSON object in each line."""
    with path.open("wb") as file:
        for line in lines:
            file.write(_json(line) + b"\n")


def is_jsonl_of(run: str, path: Path) -> bool:
    """True for a file that is an export of the run by its first line, or is empty."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(LONGEST_LINE)
    try:
        found = json.loads(first or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and (
        not first or (found.get("run") == run and "job_id" in found)
    )


def write_parquet(path: Path, run: str, columns: Columns, outcomes: Iterable[Outcome]) -> None:
    """Write one row for each outcome; the file's metadata names the run."""
    schema, rest = schema_of(columns).with_metadata({RUN: run.encode()}), iter(outcomes)
    # a table takes far less memory than the outcomes that it is made from
    parts = iter(lambda: list(islice(rest, ROWS)), [])
    tables = (table_of(columns, part).cast(schema) for part in parts)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(tables, PARTS)):
            writer.write_table(pa.concat_tables(group))


def is_parquet_of(run: str, path: Path) -> bool:
    """True for a file that is an export of the run by its metadata."""
    if not path.is_file():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, ValueError):
        return False
    return bool(metadata.get(RUN) == run.encode())


def write_webdataset(folder: Path, run: str, entries: Iterable[Entry]) -> int:
    """Write tar files of samples, each an image, its record and its text; returns their number.

    Equal entries give equal files.
    """
    _begin(folder, run, "webdataset")
    shards = samples = size = 0
    with ExitStack() as stack:
        for line, image in entries:
            if not shards or samples == SAMPLES or size >= BYTES:
                stack.close()
                path = folder / f"{shards:06}.tar"
                tar = stack.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
                shards, samples, size = shards + 1, 0, 0
            text = (line["text"] or "").encode()
            for suffix, data in ((_suffix(line), image), ("json", _json(line)), ("txt", text)):
                # the default time, owner and mode are constant, so equal entries give equal files
                info = tarfile.TarInfo(f"{line['job_id']}.{suffix}")
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
            samples, size = samples + 1, size + len(image)
    return shards


def write_imagefolder(folder: Path, run: str, entries: Iterable[Entry]) -> None:
    """Write images in subfolders, and `metadata.jsonl` with the name and the line of each.

    Nested values are JSON strings, because readers infer types from the first lines.
    """
    _begin(folder, run, "imagefolder")
    with (folder / "metadata.jsonl").open("wb") as metadata:
        for line, image in entries:
            name = f"{line['job_id'][:2]}/{line['job_id']}.{_suffix(line)}"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(image)
            flat = {
                key: json_text(value) if isinstance(value, dict | list) else value
                for key, value in line.items()
            }
            metadata.write(_json({"file_name": name} | flat) + b"\n")


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
    foreign = [name for name in names - {MARK} if not FOLDER_NAMES[form].fullmatch(name)]
    return mark == _mark(run, form) and not foreign


def _begin(folder: Path, run: str, form: str) -> None:
    folder.mkdir()
    (folder / MARK).write_bytes(_json(_mark(run, form)))


def _mark(run: str, form: str) -> dict[str, str]:
    return {"run": run, "to": form}


def _suffix(line: Line) -> str:
    """The suffix of the line's image: png, webp or jpg."""
    return str(line["image_path"]).rpartition(".")[2]


def _json(value: Line) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
