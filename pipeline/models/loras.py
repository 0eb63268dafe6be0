"""A folder of LoRAs: found by name, checked and hashed without torch."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from cachetools import LRUCache

from pipeline.errors import MALFORMED, JobError, ModelError
from pipeline.job import digest_of
from pipeline.models.digests import sha256_of
from pipeline.models.files import local_folder
from pipeline.models.safetensors import read_header

SUFFIX = ".safetensors"
MOST_RANK = 512
LARGEST = 4 << 30
"""Bytes of a file."""
REMEMBERED = 10_000
PICKLES = (".bin", ".ckpt", ".pt", ".pth")

_PART = re.compile(
    r"(?P<layer>.{1,400}?)[._]lora(?:_linear_layer)?[._](?P<part>down|up|A|B)(?:\.default)?\.weight"
)
"""Low-rank matrices in the names of diffusers, PEFT and kohya."""
_OTHER = re.compile(r"dora|magnitude|lokr|hada|oft|glora|diff|norm|bias")


class Found(NamedTuple):
    """A checked LoRA: its file, the file's digest, and the number of layers that it adds to."""

    file: Path
    digest: str
    layers: int


class LoraFolder:
    """LoRAs by name, each the file NAME.safetensors in `folder`; `cache` is the file that
    remembers digests. A file is looked at once, and again when it has changed.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._folder, self._cache = folder, cache
        self._looked: LRUCache[object, Found | str] = LRUCache(REMEMBERED)
        self._lock = Lock()

    def names(self) -> list[str]:
        """The names of all files, sorted, without those that no row could write."""
        found = (path.stem for path in self._folder.glob(f"*{SUFFIX}"))
        return sorted(name for name in found if name.isprintable())

    def state(self) -> str:
        """A digest of the files' names, sizes and times, which changes when one of them does.

        Raises ModelError.
        """
        try:
            stats = [(name, self._file(name).stat()) for name in self.names()]
        except OSError as error:
            raise ModelError(f"{self._folder} cannot be read: {error.strerror}") from error
        return digest_of([(name, each.st_size, each.st_mtime_ns) for name, each in stats])

    def find(self, name: str) -> Found:
        """The LoRA of a name. Raises JobError for a name without a file, and for a file that is no
        plain LoRA of a rank up to MOST_RANK.
        """
        file = self._file(name)
        try:
            if not file.is_file():
                raise self._missing(file)
            state = file.stat()
            key = name, state.st_size, state.st_mtime_ns
            with self._lock:
                if key not in self._looked:
                    self._looked[key] = self._look(file, name)
                found = self._looked[key]
        except OSError as error:
            raise JobError(f"the LoRA {name!r} cannot be read: {error.strerror}") from error
        if isinstance(found, str):
            raise JobError(found)
        return found

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def _missing(self, file: Path) -> JobError:
        if other := next((kind for kind in PICKLES if file.with_suffix(kind).exists()), ""):
            return JobError(f"the LoRA {file.stem!r} is a pickle ({other}), which may hold code")
        names = self.names()
        offer = ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "none"
        return JobError(f"there is no LoRA {file.stem!r} in {self._folder} (there are: {offer})")

    def _look(self, file: Path, name: str) -> Found | str:
        """The checked file, or what is wrong with it. Raises OSError."""
        if (size := file.stat().st_size) > LARGEST:
            return f"the LoRA {name!r} has {size} bytes; {LARGEST} are the most"
        try:
            ranks = _ranks({key: entry["shape"] for key, entry in read_header(file).items()})
        except (ModelError, IndexError, *MALFORMED) as error:
            return f"the LoRA {name!r} cannot be used: {error}"
        return Found(file, sha256_of([file], self._cache)[0], len(ranks))


def _ranks(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The rank of each layer's pair of matrices. Raises ValueError for anything else in a file."""
    parts = defaultdict[str, dict[bool, int]](dict)
    for key, shape in shapes.items():
        if key.endswith(".alpha"):
            continue
        if not (found := _PART.fullmatch(key)):
            kind = _OTHER.search(key)
            what = f"{kind[0]} weights" if kind else f"{key[:80]!r}"
            raise ValueError(f"it holds more than low-rank matrices: {what}")
        down = found["part"] in ("down", "A")
        parts[found["layer"]][down] = int(shape[0 if down else 1])
    pairs = {layer: sorted(set(ranks.values())) for layer, ranks in parts.items() if len(ranks) > 1}
    if not parts or len(pairs) < len(parts) or any(len(ranks) > 1 for ranks in pairs.values()):
        raise ValueError("it does not hold pairs of low-rank matrices alone")
    if (most := max(ranks[0] for ranks in pairs.values())) > MOST_RANK:
        raise ValueError(f"it has rank {most}, and {MOST_RANK} is the most")
    return {layer: ranks[0] for layer, ranks in pairs.items()}


def open_loras(reference: str, root: Path, cache: Path | None = None) -> LoraFolder | None:
    """The folder of a reference, below `root` or any existing path; None without a reference.

    Raises ModelError.
    """
    if not reference:
        return None
    if folder := local_folder(reference, root):
        return LoraFolder(folder, cache)
    raise ModelError(f"there is no folder of LoRAs {reference!r}, neither in {root} nor here")
