"""How a collection looks in Qdrant: the vectors of each source, and its payload.

A source is a passage, an image, or a pair of both.
"""

import uuid
from typing import Any

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.models import (
    Distance,
    Filter,
    HnswConfigDiff,
    IsEmptyCondition,
    Modifier,
    PayloadField,
    PayloadSchemaType,
    ScoredPoint,
    SparseVectorParams,
    VectorParams,
)

from pipeline.job import Passage, Reference
from pipeline.retrieval.bm25 import document_vector
from pipeline.retrieval.client import is_local
from pipeline.retrieval.embedders import Embedders, Vectors, embedding, normalised
from pipeline.retrieval.sources.texts import Text

DENSE, SPARSE = "dense", "bm25"
IMAGE, MIXED = "image", "mixed"
"""An image as the encoder gave it; and normalised, with the mean of its text's."""

_NAMESPACE = uuid.UUID("5b4a4f6e-8d0c-5d54-9d6a-7f0a2c6b3e11")
_INDEXED = ("origin", "tags", "license")


def create(client: QdrantClient, collection: str, embedders: Embedders) -> None:
    """Make an empty collection for what these embed."""
    # vectors come with length 1, so that the dot product is the cosine; and it is defined for a
    # text without a word, whose vector is zero
    vectors = {DENSE: VectorParams(size=embedders.texts.size, distance=Distance.DOT)}
    if embedders.images:
        size = embedders.images.size
        vectors[MIXED] = VectorParams(size=size, distance=Distance.DOT)
        # read, never searched
        vectors[IMAGE] = VectorParams(
            size=size, distance=Distance.DOT, on_disk=True, hnsw_config=HnswConfigDiff(m=0)
        )
    client.create_collection(
        collection,
        vectors_config=vectors,
        sparse_vectors_config={SPARSE: SparseVectorParams(modifier=Modifier.IDF)},
    )
    if not is_local(client):
        for field in _INDEXED:
            client.create_payload_index(collection, field, PayloadSchemaType.KEYWORD)


def identity(text: Text, image: str) -> str:
    """The same id for the same words and the same image from the same source, so that ingesting
    again changes nothing. `image` is the key of the source's image, empty without one.
    """
    parts = [text.source, text.text, image] if image else [text.source, text.text]
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def indexed(text: Text | Passage) -> str:
    """What is searched: the title too, which says what a passage is about; nothing of an image
    without a text, whose title is hardly more than the name of a file.
    """
    return f"{text.title}. {text.text}" if text.title and text.text else text.text


def payload(text: Text, image: str, embedders: Embedders, origin: str) -> dict[str, Any]:
    """What is kept beside the vectors: the source, what embedded it, and where it came from."""
    kept = text.model_dump(mode="json", exclude={"image"})
    kept |= {"embedding": embedders.texts.name, "origin": origin}
    if image and embedders.images:
        kept |= {"image": image, "images": embedders.images.name}
    return kept


def text_vectors(text: Text, vector: Vectors) -> dict[str, Any]:
    """The vectors by which words find a source; none where it has no words."""
    words = indexed(text)
    return {DENSE: vector.tolist(), SPARSE: document_vector(words)} if words else {}


def image_vectors(image: Vectors, text: Vectors | None) -> dict[str, Any]:
    """The vectors of an image, with its text's in the same space where it has one.

    Yasunaga et al., "Retrieval-Augmented Multimodal Language Modeling" (2022), section 3.1.
    """
    alone = normalised(image)
    mixed = alone if text is None else normalised(alone + normalised(text))
    return {IMAGE: image.tolist(), MIXED: mixed.tolist()}


def passage(found: ScoredPoint) -> Passage:
    """The passage that a search found."""
    return Passage(**_source(found))


def reference(found: ScoredPoint, scale: float, norm: float) -> Reference:
    """The image that a search found, to count so much, its embedding of length `norm`."""
    return Reference(
        **_source(found),
        image=(found.payload or {})["image"],
        scale=scale,
        embedding=embedding(vector_of(found, IMAGE), norm),
    )


def vector_of(found: ScoredPoint, name: str) -> Vectors:
    """A vector that came with a point, `""` for the unnamed one; empty where it has none."""
    vectors = found.vector if isinstance(found.vector, dict) else {"": found.vector or ()}
    return np.asarray(vectors.get(name, ()), dtype=np.float32)


def takes_images(client: QdrantClient, collection: str) -> bool:
    """Whether a collection was made by a profile that embeds images."""
    return _has(client, collection, IMAGE)


def mismatch(client: QdrantClient, collection: str, embedders: Embedders) -> str:
    """How what is in a collection was embedded otherwise than by these; empty where it was not."""
    if not _has(client, collection, DENSE):
        return "was written by another tool, which a profile can name in retrieval.collections"
    names = {"embedding": embedders.texts.name}
    if embedders.images:
        names["images"] = embedders.images.name
    for field, name in names.items():
        known = _embedded_with(client, collection, field)
        if known not in ("", name):
            return f"was embedded with {known}, not with {name}"
    return ""


def _has(client: QdrantClient, collection: str, vector: str) -> bool:
    vectors = client.get_collection(collection).config.params.vectors
    return isinstance(vectors, dict) and vector in vectors


def _embedded_with(client: QdrantClient, collection: str, field: str) -> str:
    """What is said by one of the sources that say it; empty where none does."""
    said = Filter(must_not=[IsEmptyCondition(is_empty=PayloadField(key=field))])
    points, _ = client.scroll(collection, said, limit=1, with_payload=[field])
    return str((points[0].payload or {})[field]) if points else ""


def _source(found: ScoredPoint) -> dict[str, Any]:
    kept = found.payload or {}
    known = Passage.model_fields.keys() - {"id", "score"}
    return {key: kept[key] for key in known if key in kept} | {
        "id": str(found.id),
        "score": found.score,
    }
