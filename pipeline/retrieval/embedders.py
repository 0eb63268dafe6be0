"""The ports that turn texts and images into dense vectors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.job import Embedding, ImageArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors of length 1; their dot product is the texts' similarity."""

    @property
    def name(self) -> str:
        """Name and version of the embedder; only vectors of one name can be compared."""
        ...

    @property
    def size(self) -> int:
        """Components of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, size], one row per text, in order. A text without content may be all zero."""
        ...

    def reads_whole(self, text: str) -> bool:
        """False if the model's window cuts the text."""
        ...


class ImageEmbedder(Protocol):
    """Turns images and texts into vectors of one space; their cosine is the similarity, and they
    may have any length.
    """

    @property
    def name(self) -> str:
        """Name and version of the embedder; only vectors of one name can be compared."""
        ...

    @property
    def size(self) -> int:
        """Components of a vector."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """[texts, size], one row per text, in order."""
        ...

    def reads_whole(self, text: str) -> bool:
        """False if the model's window cuts the text."""
        ...

    def encode_images(self, images: Iterable[ImageArray]) -> Vectors:
        """[images, size], one row per image, in order; one image at a time is held."""
        ...


@dataclass(frozen=True)
class Embedders:
    """The embedders of one profile; without `images` its collections hold texts alone."""

    texts: Embedder
    images: ImageEmbedder | None = None


def embedding(image: Vectors, norm: float) -> Embedding:
    """An image's vector for the image adapter: scaled to length `norm`, or unscaled with 0."""
    return tuple((normalised(image) * norm if norm else image).tolist())


def normalised(vector: Vectors) -> Vectors:
    """The vector at length 1; a zero vector stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
