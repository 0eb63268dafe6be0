"""The files of one run in the store, by their paths in the run's folder."""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline.errors import ConfigError, RunError, TooLarge
from pipeline.ports import BLOB_LIMIT, DOCUMENT_LIMIT, Blob, Store

RUN_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")

Result = TypeVar("Result")


class RunFiles:
    """Reading and writing below `runs/<run>` in a store.

    Raises ConfigError for a run name that cannot name a folder.
    """

    def __init__(self, store: Store, run: str) -> None:
        if not RUN_NAME.fullmatch(run):
            raise ConfigError(
                f"run name {run!r}: up to 64 of a-z, 0-9, '-', '_' and '.', the first one of"
                " a-z, 0-9 and '_'"
            )
        self.store, self.run = store, run
        self.folder = f"runs/{run}"

    def address(self, name: str = "") -> str:
        """The path or URL of the run's folder, or of a file in it, for people."""
        return self.store.address(self.key(name) if name else self.folder)

    def key(self, name: str) -> str:
        """The store's key for a path relative to the run's folder."""
        return f"{self.folder}/{name}"

    def blob(self, name: str) -> bytes:
        """A file of the run's folder. Raises RunError when it is missing."""
        return self.read(name, bytes)

    def read(self, name: str, parse: Callable[[bytes], Result]) -> Result:
        """A file parsed with `parse`. Raises RunError when it is missing or damaged."""
        try:
            return self.parse(name, parse)
        except KeyError:
            raise RunError(f"{self.address(name)} is missing") from None

    def has(self, name: str) -> bool:
        """True where the run's folder has such a file."""
        return self.store.has(self.key(name))

    def write(self, name: str, data: bytes, content_type: str) -> None:
        """Put a file into the run's folder."""
        self.store.put(self.key(name), data, content_type=content_type)

    def drop(self, folder: str, *, but: str = "") -> None:
        """Remove the files below a folder, but for those of one folder in it."""
        kept = self.key(f"{folder}{but}/")
        for key in list(self.store.keys(self.key(folder))):
            if not but or not key.startswith(kept):
                self.store.delete(key)

    def listing(self, prefix: str) -> Iterator[Blob]:
        """The files of the run's folder with this path prefix, with their ages, sorted."""
        return self.store.listing(self.key(prefix))

    def parse(self, name: str, parse: Callable[[bytes], Result]) -> Result:
        """A file parsed with `parse`. Raises KeyError when it is missing, RunError when damaged."""
        most = DOCUMENT_LIMIT if name.endswith(".json") else BLOB_LIMIT
        try:
            return parse(self.store.get(self.key(name), most))
        except TooLarge as error:
            raise RunError(error.detail) from error
        # OSError is pyarrow's, for a damaged file
        except (ValueError, OSError, RecursionError) as error:
            what = "is damaged or of another version of Pressrun"
            raise RunError(f"{self.address(name)} {what}: {error}") from error
