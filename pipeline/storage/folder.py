"""A store in a folder: one file for each key."""

import errno
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.errors import StoreError, StoreFull, TooLarge, Unconditional
from pipeline.ports import BLOB_LIMIT, Blob
from pipeline.storage.keys import check_key, check_prefix
from pipeline.telemetry import trouble

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DRAFT = re.compile(r"\.[0-9a-f]{32}")


class FolderStore:
    """The Store port over the files below `root`, which is made when first written to.

    Names that begin with a dot belong to the store itself (half-written files) or to the
    system, and are no keys. Where `conditional` is False, for file systems without hard links,
    `put` with `new` looks before it writes, and the caller keeps other writers away.
    """

    def __init__(self, root: Path, *, conditional: bool = True) -> None:
        self._root, self.conditional = str(root.absolute()), conditional

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        """Write a draft in the same folder, then move it into place atomically."""
        target = self._path(key)
        draft, moved = f"{os.path.dirname(target)}/.{uuid.uuid4().hex}", False
        try:
            try:
                try:
                    _write(draft, data)
                except FileNotFoundError:
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    _write(draft, data)
                if new and self.conditional:
                    return _link(draft, target)
                if new and os.path.exists(target):
                    return False
                os.replace(draft, target)
                moved = True
                return True
            finally:
                if not moved:
                    _remove(draft)
        except OSError as error:
            raise _refusal("write", target, error) from error

    def get(self, key: str, most: int = BLOB_LIMIT) -> bytes:
        """The file's bytes."""
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                if (size := os.fstat(file.fileno()).st_size) > most:
                    raise TooLarge(f"{path} has {size} bytes, over {most}")
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(key) from None
        except OSError as error:
            raise _refusal("read", path, error) from error

    def has(self, key: str) -> bool:
        """Look for the file."""
        found = _stat(self._path(key))
        return found is not None and not stat.S_ISDIR(found.st_mode)

    def fetch(self, key: str, path: Path) -> None:
        """Copy the file."""
        source = self._path(key)
        try:
            shutil.copyfile(source, path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if os.path.isfile(source):
                raise StoreError(f"cannot write {path}: {error.strerror}") from error
            raise KeyError(key) from None
        except OSError as error:
            raise StoreError(f"cannot copy {source} to {path}: {error.strerror}") from error

    def move(self, key: str, target: str) -> bool:
        """Rename the file; of many concurrent movers one succeeds."""
        source, to = self._path(key), self._path(target)
        try:
            os.makedirs(os.path.dirname(to), exist_ok=True)
            os.replace(source, to)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"cannot move {source} to {to}: {error.strerror}") from error
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Walk folder by folder, with the names of one folder in memory at a time."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        return self._walk(folder + "/" if folder else "", prefix)

    def listing(self, prefix: str) -> Iterator[Blob]:
        """The files of `keys`, with their sizes and ages."""
        now = None
        for key in self.keys(prefix):
            now = self._clock() if now is None else now
            if found := _stat(self._path(key)):
                yield Blob(key, found.st_size, max(0.0, now - found.st_mtime))

    def folders(self, prefix: str) -> Iterator[str]:
        """The names of the folders directly below the folder `prefix`."""
        check_prefix(prefix)
        below = (name for name in self._names(prefix) if name.endswith("/"))
        return (name[:-1] for name in below if next(self._walk(prefix + name, prefix), None))

    def delete(self, key: str) -> None:
        """Remove the file."""
        _unlink(self._path(key))

    def sweep(self, prefix: str, older: float) -> int:
        """Remove old drafts that were never moved into place."""
        removed, now = 0, self._clock()
        for draft in self._drafts(check_prefix(prefix)):
            found = _stat(draft)
            if found and now - found.st_mtime > older:
                _unlink(draft)
                removed += 1
        return removed

    def address(self, key: str) -> str:
        """The file's absolute path; the root's for an empty key."""
        return self._path(key) if key else self._root

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _clock(self) -> float:
        """The time by the file system's clock, which is another machine's where the folder is
        shared; our own where nothing can be written, and so nothing removed either.
        """
        probe = f"{self._root}/.{uuid.uuid4().hex}"
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return os.stat(probe).st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                _remove(probe)

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        for name in self._names(folder):
            key = folder + name
            if not key.startswith(prefix[: len(key)]):
                continue
            if name.endswith("/"):
                yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                yield key

    def _drafts(self, folder: str) -> Iterator[str]:
        for name in self._scan(folder):
            if _DRAFT.fullmatch(name):
                yield f"{self._root}/{folder}{name}"
            elif name.endswith("/") and not name.startswith("."):
                yield from self._drafts(folder + name)

    def _names(self, folder: str) -> list[str]:
        """A folder's valid names, sorted; subfolders end with '/', as their keys sort by it."""
        names = self._scan(folder)
        return sorted(name for name in names if not name.startswith(".") and "\\" not in name)

    def _scan(self, folder: str) -> Iterator[str]:
        path = f"{self._root}/{folder}"
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    yield entry.name + "/" * entry.is_dir()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _refusal("list", path, error) from error


def _stat(path: str) -> os.stat_result | None:
    """The file's status; None for a missing file."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refusal("read", path, error) from error


def _unlink(path: str) -> None:
    try:
        _remove(path)
    except OSError as error:
        raise _refusal("delete", path, error) from error


def _refusal(doing: str, path: str, error: OSError) -> StoreError:
    """A refused system call as a StoreError or StoreFull, reported to telemetry."""
    trouble("store", errno.errorcode.get(error.errno or 0, "OSError"))
    kind = StoreFull if error.errno in _FULL else StoreError
    return kind(f"cannot {doing} {path}: {error.strerror}")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def _write(path: str, data: bytes) -> None:
    # not a file of Python's own, which would ask for its size, its position and its terminal
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        # a name must never appear before its bytes, even when the power fails
        os.fsync(file)
    finally:
        os.close(file)


def _link(draft: str, target: str) -> bool:
    """Link the draft to its key. Hard links are atomic, so exactly one of many writers wins."""
    try:
        os.link(draft, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise Unconditional(
                f"{os.path.dirname(target)}: its file system has no hard links."
            ) from error
        raise
    return True
