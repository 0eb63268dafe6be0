"""Images kept in the store by content, each once; nothing removes them,
because records of any run may name them.
"""

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.job import ImageArray
from pipeline.media.image import read_image, to_array
from pipeline.ports import Store

KNOWLEDGE, INPUTS = "knowledge/images/", "inputs/"


class ImageStore:
    """The images of one folder of the store."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder

    def put(self, image: Image.Image) -> str:
        """Store an image's pixels, and no metadata of its file; returns its key."""
        file = BytesIO()
        pixels = Image.fromarray(np.asarray(image.convert("RGB")))  # without the metadata
        # level 1: a third of the default's time for a file that is hardly larger
        pixels.save(file, format="PNG", compress_level=1)
        key = f"{self._folder}{pixel_digest(image)}.png"
        self._store.put(key, file.getvalue(), content_type="image/png", new=True)
        return key

    def get(self, key: str) -> ImageArray:
        """The pixels of a key. Raises KeyError for an unknown one."""
        return to_array(self.image(key))

    def image(self, key: str) -> Image.Image:
        """The image of a key, in 8-bit RGB. Raises KeyError for an unknown one."""
        return read_image(self._store.get(key))


def pixel_digest(image: Image.Image) -> str:
    """The sha256 of an image's size and its pixels in 8-bit RGB, however a file packs them."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()
