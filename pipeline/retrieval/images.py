"""The images of the knowledge base: read from files, and embedded again from the store."""

from pathlib import Path

from PIL import Image

from pipeline.job import Context
from pipeline.media.image import read_image
from pipeline.media.image_store import ImageStore
from pipeline.retrieval.embedders import ImageEmbedder, embedding

LONGEST_FILE = 64 * 1024 * 1024
"""Bytes of an image's file."""
LONGEST_SIDE = 1024
"""Pixels; a larger image is shrunk. Encoders read a few hundred."""


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


def image_of(path: Path) -> Image.Image:
    """The image in an untrusted file, shrunk to LONGEST_SIDE, in 8-bit RGB.

    Raises JobError for a file that is no image or too large, OSError if it cannot be read.
    """
    with path.open("rb") as file:
        return read_image(file.read(LONGEST_FILE), LONGEST_SIDE)
