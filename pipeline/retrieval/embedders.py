"""Texts to dense vectors, by hashing alone or by a text encoder; images by another encoder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.job import Embedding, ImageArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors of length 1 whose dot product says how alike the texts are."""

    @property
    def name(self) -> str:
        """Names what made a vector; vectors of different names cannot be compared."""
        ...

    @property
    def size(self) -> int:
        """Components of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, size], one row per text, in order. A text without content may be all zero."""
        ...

    def reads_whole(self, text: str) -> bool:
        """Whether all of a text counts, and none is cut where the model's window ends."""
        ...


class ImageEmbedder(Protocol):
    """Turns images and texts into vectors of one space, of any length: their directions say how
    alike they are.
    """

    @property
    def name(self) -> str:
        """Names what made a vector; vectors of different names cannot be compared."""
        ...

    @property
    def size(self) -> int:
        """Components of a vector."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """[texts, size], one row per text, in order."""
        ...

    def reads_whole(self, text: str) -> bool:
        """Whether all of a text counts, and none is cut where the model's window ends."""
        ...

    def embed_images(self, images: Iterable[ImageArray]) -> Vectors:
        """[images, size], one row per image, in order; one image at a time is held."""
        ...


@dataclass(frozen=True)
class Embedders:
    """What a profile embeds with; without `images` a collection holds texts alone."""

    texts: Embedder
    images: ImageEmbedder | None = None


def embedding(image: Vectors, norm: float) -> Embedding:
    """An image's vector as the image adapter wants it: of length `norm`, with 0 of its own."""
    return tuple((normalised(image) * norm if norm else image).tolist())


def normalised(vector: Vectors) -> Vectors:
    """The vector at length 1; one of zeros stays."""
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
