"""A store in a folder: one file for each key."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.storing.keys import check_key, check_prefix

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class FolderStore:
    """The Store port over the files below `root`, which is made when first written to.

    Names that begin with a dot belong to the store itself (half-written files) or to the
    system, and are no keys.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:  # noqa: ARG002 - a file keeps no type
        """Write the file beside its place, then move it there in one step."""
        target = self._path(key)
        draft = target.parent / f".{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write(draft, data)
                return _link(draft, target) if new else _replace(draft, target)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror}") from error

    def get(self, key: str) -> bytes:
        """The file's bytes."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(key) from None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def keys(self, prefix: str) -> Iterator[str]:
        """Walks folder by folder; the names of one folder are held in memory at a time."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        return self._walk(folder + "/" if folder else "", prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """The names of the folders directly below the folder `prefix`."""
        check_prefix(prefix)
        below = (name for name in self._names(prefix) if name.endswith("/"))
        return (name[:-1] for name in below if next(self._walk(prefix + name, prefix), None))

    def delete(self, key: str) -> None:
        """Remove the file."""
        path = self._path(key)
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        except OSError as error:
            raise StoreError(f"cannot delete {path}: {error.strerror}") from error

    def address(self, key: str) -> str:
        """The file's absolute path; the root's for an empty key."""
        return str(self._path(key) if key else self._root)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        for name in self._names(folder):
            key = folder + name
            if not key.startswith(prefix[: len(key)]):
                continue
            if name.endswith("/"):
                yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                yield key

    def _names(self, folder: str) -> list[str]:
        """A folder's names, sorted; subfolders end with '/', as their keys are sorted by it."""
        path = self._root / folder
        try:
            with os.scandir(path) as entries:
                shown = (entry for entry in entries if not entry.name.startswith("."))
                return sorted(entry.name + "/" * entry.is_dir() for entry in shown)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"cannot list {path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        # a name must never appear before its bytes, even when the power fails
        os.fsync(file.fileno())


def _replace(draft: Path, target: Path) -> bool:
    draft.replace(target)
    return True


def _link(draft: Path, target: Path) -> bool:
    """Hard links are made or refused in one step, so one of many writers wins."""
    try:
        target.hardlink_to(draft)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            detail = "its file system has no hard links; keep the store on another one"
            raise StoreError(f"{target.parent}: {detail}") from error
        raise
    return True
