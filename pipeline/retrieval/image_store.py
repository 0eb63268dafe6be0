"""The images of the knowledge base, kept in the store beside the runs."""

import hashlib
from io import BytesIO
from pathlib import Path

from pipeline.job import Context, ImageArray
from pipeline.media.image import decode, to_image
from pipeline.ports import Store
from pipeline.retrieval.embedders import ImageEmbedder, embedding

LONGEST_FILE = 64 * 1024 * 1024
"""Bytes of an image's file."""
LONGEST_SIDE = 1024
"""Pixels; a larger image is shrunk. Encoders read a few hundred."""
FOLDER = "knowledge/images/"


class ImageStore:
    """The images of all collections by content, each once; never removed: records refer to them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, image: ImageArray) -> str:
        """Store an image's pixels, and no metadata of its file; returns its key."""
        file = BytesIO()
        to_image(image).save(file, format="PNG")
        data = file.getvalue()
        key = f"{FOLDER}{hashlib.sha256(data).hexdigest()}.png"
        self._store.put(key, data, content_type="image/png", new=True)
        return key

    def get(self, key: str) -> ImageArray:
        """The image of a key. Raises KeyError for an unknown one."""
        return decode(self._store.get(key))


def embedded(context: Context, encoder: ImageEmbedder, images: ImageStore, norm: float) -> Context:
    """The context with its images' embeddings, scaled to length `norm`, or unscaled with 0.

    Raises KeyError for an image that is not in the store.
    """
    vectors = encoder.encode_images(images.get(reference.image) for reference in context.references)
    references = tuple(
        reference.model_copy(update={"embedding": embedding(vector, norm)})
        for reference, vector in zip(context.references, vectors, strict=True)
    )
    return context.model_copy(update={"references": references})


def read_image(path: Path) -> ImageArray:
    """The image in an untrusted file, shrunk to LONGEST_SIDE, in 8 bits.

    Raises JobError for a file that is no image or too large, OSError if it cannot be read.
    """
    with path.open("rb") as file:
        return decode(file.read(LONGEST_FILE), LONGEST_SIDE)
