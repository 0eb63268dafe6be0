"""Input images of rows: read from allowed places when a run opens, stored by content, and loaded
from the store by workers.
"""

import errno
import hashlib
import operator
import os
import stat
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePath
from threading import Lock
from typing import Any

from cachetools import LRUCache, cachedmethod
from PIL import Image, ImageOps

from pipeline.errors import JobError, StoreError, TooLarge
from pipeline.job import Embedding, ImageArray, InputImage, LoadedImage
from pipeline.media.image import LARGEST_SIDE, pixels_in, read_image, to_array, to_image
from pipeline.media.image_store import INPUTS, ImageStore, pixel_digest
from pipeline.ports import Store

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes."""
REMEMBERED = 10_000
READERS = 8
ALONE = 16_000_000
"""An image of so many pixels or more is unpacked while no other such one is."""
KEPT_BYTES = 256 << 20
EMBEDDED_SIDE = 1024
"""Pixels; encoders read a few hundred, and the knowledge base keeps so many."""

_BUCKET = "s3://"
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.ENXIO}
"""Errors of a file that are the row's own fault; with others, the disk does not answer."""


class InputReader:
    """Reads the images that rows name, below `folders` and in `buckets`, stores by address. Each is
    read once while its name is remembered.

    A relative path is looked for in each folder in turn. Without `images` nothing is stored;
    `patiently` makes each call to a store.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        buckets: Mapping[str, Store] | None = None,
        images: ImageStore | None = None,
        patiently: Callable[[Callable[[], Any]], Any] = operator.call,
    ) -> None:
        self._folders = [(folder.absolute(), folder.resolve()) for folder in folders]
        self._buckets, self._images, self._patiently = buckets or {}, images, patiently
        self._read: LRUCache[str, InputImage | JobError] = LRUCache(REMEMBERED)
        self._states: LRUCache[str, str] = LRUCache(REMEMBERED)
        self._large = Lock()

    def read(self, name: str) -> InputImage:
        """The image of a path or an `s3://` address, in the store from now on.

        Raises JobError for a name outside the allowed places, and for a file that is missing, no
        image, damaged or too large; StoreError where a disk or a bucket does not answer.
        """
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = self._reading(name)
        if isinstance(found, JobError):
            raise found
        return found

    def read_ahead(self, names: Collection[str]) -> None:
        """Read several images at a time, for `read` to find."""
        new = [name for name in dict.fromkeys(names) if name not in self._read]
        if len(new) > 1:
            with ThreadPoolExecutor(READERS) as threads:
                self._read.update(zip(new, threads.map(self._reading, new), strict=True))

    def state(self, names: Iterable[str]) -> str:
        """A digest of the files' sizes and times, which changes when one of them does; another one
        each time where a bucket is named. Empty without names.
        """
        digest, any_name = hashlib.sha256(), False
        for name in names:
            digest.update(f"{name}\0{self._state(name)}\0".encode(errors="surrogatepass"))
            any_name = True
        return digest.hexdigest()[:24] if any_name else ""

    @cachedmethod(operator.attrgetter("_states"))
    def _state(self, name: str) -> str:
        if name.startswith(_BUCKET):
            return uuid.uuid4().hex
        try:
            file = self._file(name)
            found = file.stat()
        except (JobError, OSError):
            return ""
        return f"{found.st_size} {found.st_mtime_ns} {os.access(file, os.R_OK)}"

    def _reading(self, name: str) -> InputImage | JobError:
        try:
            data = self._bytes(name)
            if pixels_in(data) < ALONE:
                image = read_image(data, LARGEST_SIDE)
            else:
                with self._large:
                    image = read_image(data, LARGEST_SIDE)
        except JobError as error:
            return error
        if self._images:
            self._patiently(partial(self._images.put, image))
        width, height = image.size
        return InputImage(path=name, sha256=pixel_digest(image), width=width, height=height)

    def _bytes(self, name: str) -> bytes:
        if name.startswith(_BUCKET):
            return self._object(name)
        if "://" in name or name.startswith("data:"):
            raise JobError("no URL is fetched: name a file, or an object as s3://bucket/key")
        try:
            return _regular(self._file(name))
        except OSError as error:
            if error.errno in _ABSENT:
                raise JobError(f"the image cannot be read: {error.strerror}") from error
            raise StoreError(f"{name}: {error.strerror}") from error

    def _object(self, address: str) -> bytes:
        for place, bucket in self._buckets.items():
            if address.startswith(f"{place.rstrip('/')}/"):
                key = address[len(place.rstrip("/")) + 1 :]
                if "\\" in key or any(part.startswith(".") or not part for part in key.split("/")):
                    raise JobError("no part of an object's key is empty or begins with a dot")
                try:
                    data: bytes = self._patiently(partial(bucket.get, key, LARGEST_FILE))
                except KeyError:
                    raise JobError("there is no such object") from None
                except TooLarge as error:
                    raise JobError(_TOO_LARGE) from error
                return data
        raise JobError(f"it is in no allowed place; there are {self._allowed()}")

    def _file(self, name: str) -> Path:
        """The real path of a name, below a folder. Raises JobError."""
        outside = True
        for folder, real_folder in self._folders:
            path = Path(os.path.normpath(folder / name))
            if not (path.is_relative_to(folder) or path.is_relative_to(real_folder)):
                continue
            try:
                real = path.resolve(strict=True)
            except (OSError, RuntimeError, ValueError):  # missing, a loop of links, a zero byte
                outside = False
                continue
            if real.is_relative_to(real_folder):
                return real
        if outside:
            raise JobError(f"it leads out of the allowed places; there are {self._allowed()}")
        raise JobError(f"there is no such file below {self._allowed()}")

    def _allowed(self) -> str:
        places = [*(str(folder) for folder, _ in self._folders), *self._buckets]
        return f"{', '.join(places)} (PRESSRUN_INPUTS)"


class StoredInputs:
    """The Inputs port over the store. What many rows share is loaded and embedded once."""

    def __init__(self, images: ImageStore, embed: Callable[[ImageArray], Embedding]) -> None:
        self._images, self._embed = images, embed
        self._lock = Lock()
        self._loaded: LRUCache[object, LoadedImage] = LRUCache(
            KEPT_BYTES, getsizeof=lambda image: min(image.pixels.nbytes, KEPT_BYTES)
        )
        self._embedded: LRUCache[str, Embedding] = LRUCache(REMEMBERED)

    def keep(self, image: ImageArray, name: str) -> InputImage:
        """Put a candidate into the store."""
        stored = to_image(image)
        key, (width, height) = self._images.put(stored), stored.size
        return InputImage(path=name, sha256=PurePath(key).stem, width=width, height=height)

    def load(self, image: InputImage, width: int, height: int) -> LoadedImage:
        """The image in the size asked for: scaled to cover it, and cropped around its middle."""
        key = image.sha256, width, height
        with self._lock:
            found = self._loaded.get(key)
        if found is None:
            fitted = ImageOps.fit(self._stored(image), (width, height))
            found = LoadedImage(image.sha256, to_array(fitted))
            with self._lock:
                self._loaded[key] = found
        return found

    def embed(self, image: InputImage) -> Embedding:
        """The whole image's embedding."""
        with self._lock:
            found = self._embedded.get(image.sha256)
        if found is None:
            stored = self._stored(image)
            stored.thumbnail((EMBEDDED_SIDE, EMBEDDED_SIDE))
            found = self._embed(to_array(stored))
            with self._lock:
                self._embedded[image.sha256] = found
        return found

    def _stored(self, image: InputImage) -> Image.Image:
        try:
            return self._images.image(f"{INPUTS}{image.sha256}.png")
        except KeyError:
            raise JobError(f"the input image {image.path!r} is gone from the store") from None


_TOO_LARGE = f"the file is larger than {LARGEST_FILE >> 20} MB"


def _regular(path: Path) -> bytes:
    """The bytes of a regular file; a pipe is not waited for. Raises JobError, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise JobError("it is no regular file")
        if found.st_size > LARGEST_FILE:
            raise JobError(_TOO_LARGE)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST_FILE)
    finally:
        os.close(descriptor)
