"""SHA-256 of model files, remembered for all processes of a home: a model may have many gigabytes.

The cache is a JSON file: by absolute path, the state that a file had and its digest. Whoever can
write it can make a record name other files than those that were loaded, just as by exchanging the
files of a running process.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

SETTLED_SECONDS = 2.0
"""A younger file may change again within the resolution of its time stamps."""
LARGEST = 16 << 20
"""Bytes of the cache that are read."""

State = tuple[int, int, int, int]
"""Size, times of change of content and of the inode in nanoseconds, and inode."""
Entries = dict[str, tuple[State, str]]
_ENTRIES: TypeAdapter[Entries] = TypeAdapter(Entries)


def sha256_of(files: Sequence[Path], cache: Path | None = None) -> list[str]:
    """The digests in hexadecimal, in order; `cache` is the file that remembers them, if any."""
    known = _read(cache) if cache else {}
    fresh: Entries = {}

    def digest(path: Path) -> str:
        name, state, began = str(path.absolute()), _state(path), time.time_ns()
        if name in known and known[name][0] == state:
            return known[name][1]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        settled = max(state[1], state[2]) < began - SETTLED_SECONDS * 1e9
        if settled and _state(path) == state:
            fresh[name] = state, found
        return found

    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(digest, files))
    if cache and fresh:
        # another process may write meanwhile: what is lost then is hashed again
        held = {name: entry for name, entry in _read(cache).items() if Path(name).is_file()}
        # without it all is hashed each time, which only takes longer
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            draft = cache.with_name(f"{cache.name}.{uuid.uuid4().hex}")
            try:
                draft.write_bytes(_ENTRIES.dump_json(held | fresh))
                draft.replace(cache)
            finally:
                draft.unlink(missing_ok=True)
    return digests


def _state(path: Path) -> State:
    stat = path.stat()
    # the inode's time shows a change whose file was given its old time again
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _read(cache: Path) -> Entries:
    """The entries by path; none from a file that is missing or damaged."""
    try:
        with cache.open("rb") as file:
            return _ENTRIES.validate_json(file.read(LARGEST))
    except (OSError, ValidationError):
        return {}
