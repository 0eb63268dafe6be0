"""Checks safetensors files without reading their tensors.

Source: the format's description in the safetensors repository: eight bytes with the header's
length (little endian), the header as JSON, then the tensors, back to back.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import MALFORMED, ModelError

HEADER_BYTES = 10_000_000
TENSORS = 20_000
CONFIG_BYTES = 32_000_000
EXPONENTS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000)}
"""By type of a tensor, the word that holds a number, and the bits of its exponent in it."""
CHUNK = 1 << 24
"""Bytes that are looked at in one go."""
POINTER = b"version https://git-lfs.github.com/"
"""First bytes of a Git LFS pointer, which stands in for a file that was not fetched."""


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The header's entries by tensor, each with its `dtype`, `shape` and `data_offsets`. Raises
    ModelError unless the header is valid and lists exactly the file's bytes.
    """
    size, header = path.stat().st_size, _header(path)
    length = len(header)
    try:
        entries: dict[str, dict[str, Any]] = json.loads(header)
        entries.pop("__metadata__", None)
        offsets = (entry["data_offsets"] for entry in entries.values())
        spans = sorted((int(first), int(end)) for first, end in offsets)
        for name, entry in entries.items():
            if any(type(side) is not int or side < 0 for side in entry["shape"]):
                raise ValueError(f"the shape of {name[:80]}")
    except MALFORMED as error:
        raise _broken(path, f"its header is malformed ({error!r})") from error
    if len(spans) > TENSORS:
        raise _broken(path, f"it lists {len(spans)} tensors, more than {TENSORS}")
    if any(
        first > end or first != before for (_, before), (first, end) in pairwise([(0, 0), *spans])
    ):
        raise _broken(path, "its tensors overlap or leave gaps")
    held, listed = size - 8 - length, spans[-1][1] if spans else 0
    if held != listed:
        raise _broken(path, f"it holds {held} bytes of tensors and its header lists {listed}")
    return entries


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a file's header says of the whole; read_header has checked it before."""
    told = json.loads(_header(path)).get("__metadata__")
    return {key: str(value) for key, value in told.items()} if isinstance(told, dict) else {}


def finite(path: Path, header: Mapping[str, Mapping[str, Any]]) -> bool:
    """True where a file of this header holds no infinity and no NaN, as far as its tensors are of a
    type in EXPONENTS. Raises OSError.
    """
    held = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    start = path.stat().st_size - held
    for entry in header.values():
        if entry["dtype"] not in EXPONENTS:
            continue
        word, exponent = EXPONENTS[entry["dtype"]]
        first, end = entry["data_offsets"]
        for begin in range(start + first, start + end, CHUNK):
            size = min(CHUNK, start + end - begin) // np.dtype(word).itemsize
            bits = np.fromfile(path, word, size, offset=begin)
            # all ones in these alone (IEEE 754, section 3.4)
            if (bits & exponent == exponent).any():
                return False
    return True


def shards(index: Path) -> list[Path]:
    """The files that a sharded model's index names; empty where none of them exists.

    None is fine: a model fetched in one variant keeps the indexes of the others. Raises
    ModelError where only some are missing.
    """
    weights = read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise ModelError(f"{index} names no weights; fetch it again")
    named = [index.parent / name for name in sorted({Path(str(v)).name for v in weights.values()})]
    missing = [shard for shard in named if not shard.is_file()]
    if missing and len(missing) < len(named):
        raise ModelError(f"{missing[0]} is missing, which {index.name} names; fetch it again")
    return [] if missing else named


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError."""
    if path.stat().st_size > CONFIG_BYTES:
        raise ModelError(f"{path} is larger than a configuration's {CONFIG_BYTES} bytes")
    data = path.read_bytes()
    if data.startswith(POINTER):
        raise _pointer(path)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object")
    return value


def _header(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(POINTER))
        if start == POINTER:
            raise _pointer(path)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_BYTES, size - 8):
            raise _broken(path, f"its header of {length} bytes does not fit")
        return file.read(length)


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is truncated or malformed: {why}; fetch it again")


def _pointer(path: Path) -> ModelError:
    return ModelError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`")
