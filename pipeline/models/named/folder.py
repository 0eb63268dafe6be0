"""Folders of weights that rows name, such as LoRAs: found, checked and hashed without torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, NamedTuple, Self

from cachetools import LRUCache

from pipeline.errors import MALFORMED, JobError, ModelError
from pipeline.job import digest_of
from pipeline.models.digests import sha256_of
from pipeline.models.files import local_folder, local_model
from pipeline.models.safetensors import finite, read_header

SUFFIX = ".safetensors"
REMEMBERED = 10_000
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Found(NamedTuple):
    """A checked file, its digest, and the number of a LoRA's layers or an embedding's vectors."""

    file: Path
    digest: str
    size: int


class WeightsFolder(ABC):
    """Weights by name, each the file NAME.safetensors in `folder`; `cache` is the file that
    remembers digests, `model` the folder or file of the model that they are for. A file is looked
    at once, and again when it has changed.
    """

    kind: ClassVar[str]
    """The word for what a file holds."""
    largest: ClassVar[int]
    """Bytes of a file."""

    def __init__(self, folder: Path, cache: Path | None = None, model: Path | None = None) -> None:
        self._folder, self._cache, self._model = folder, cache, model
        self._looked: LRUCache[object, Found | str] = LRUCache(REMEMBERED)
        self._lock = Lock()

    @classmethod
    def open(
        cls, reference: str, root: Path, cache: Path | None = None, model: str = ""
    ) -> Self | None:
        """The folder of a reference, for the model of another one, both below `root` or anywhere
        else; None without a reference.

        Raises ModelError.
        """
        if not reference:
            return None
        if folder := local_folder(reference, root):
            return cls(folder, cache, local_model(model, root))
        raise ModelError(
            f"there is no folder of {cls.kind}s {reference!r}, neither in {root} nor here"
        )

    @abstractmethod
    def size(self, header: Mapping[str, Mapping[str, Any]]) -> int:
        """The number of layers or vectors that a file's header lists. Raises ValueError, or another
        error of MALFORMED, for a file that cannot be used.
        """

    @abstractmethod
    def fit(self, header: Mapping[str, Mapping[str, Any]], model: Path) -> None:
        """Raise ValueError, or another error of MALFORMED, for weights that were clearly made for
        another model than `model`.
        """

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
        """The file of a name. Raises JobError for a name without a file, and for a file that is too
        large or that `size` refuses.
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
            raise JobError(f"the {self.kind} {name!r} cannot be read: {error.strerror}") from error
        if isinstance(found, str):
            raise JobError(found)
        return found

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def _missing(self, file: Path) -> JobError:
        what = f"{self.kind} {file.stem!r}"
        if other := next((kind for kind in PICKLES if file.with_suffix(kind).exists()), ""):
            return JobError(f"the {what} is a pickle ({other}), which may hold code")
        names = self.names()
        offer = ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "none"
        return JobError(f"there is no {what} in {self._folder} (there are: {offer})")

    def _look(self, file: Path, name: str) -> Found | str:
        """The checked file, or what is wrong with it. Raises OSError."""
        if (held := file.stat().st_size) > self.largest:
            return f"the {self.kind} {name!r} has {held} bytes; {self.largest} are the most"
        try:
            header = read_header(file)
            size = self.size(header)
            if self._model:
                self.fit(header, self._model)
            if not finite(file, header):
                raise ValueError("it holds numbers that are not finite")
        except (ModelError, IndexError, *MALFORMED) as error:
            return f"the {self.kind} {name!r} cannot be used: {error}"
        return Found(file, sha256_of([file], self._cache)[0], size)
