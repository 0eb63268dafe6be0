"""The layout of a collection in Qdrant: the vectors of each source, and its payload.

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
from pipeline.retrieval.client import is_local
from pipeline.retrieval.embedders import Embedders, Vectors, embedding, normalised
from pipeline.retrieval.lexical import document_vector
from pipeline.retrieval.sources.texts import Text

DENSE, SPARSE = "dense", "bm25"
IMAGE, MIXED = "image", "mixed"
"""An image's vector from the encoder; and normalised, averaged with its text's vector."""

_NAMESPACE = uuid.UUID("5b4a4f6e-8d0c-5d54-9d6a-7f0a2c6b3e11")
_INDEXED = ("origin", "tags", "license")


def create(client: QdrantClient, collection: str, embedders: Embedders) -> None:
    """Create an empty collection for the vectors of these embedders."""
    # vectors have length 1, so that the dot product is the cosine; unlike the cosine it is defined
    # for a text without words, whose vector is zero
    vectors = {DENSE: VectorParams(size=embedders.texts.size, distance=Distance.DOT)}
    if embedders.images:
        size = embedders.images.size
        vectors[MIXED] = VectorParams(size=size, distance=Distance.DOT)
        # read, never searched: without an index
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
    """The source's id: equal for equal words and image of one origin, so that ingesting again
    changes nothing. `image` is the key of its image, empty without one.
    """
    parts = [text.source, text.text, image] if image else [text.source, text.text]
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def indexed(text: Text | Passage) -> str:
    """The searched text, the title included; empty for an image without a text, whose title is
    usually a file name.
    """
    return f"{text.title}. {text.text}" if text.title and text.text else text.text


def payload(text: Text, image: str, embedders: Embedders, origin: str) -> dict[str, Any]:
    """The payload beside the vectors: the source, its embedders, and the path that brought it."""
    kept = text.model_dump(mode="json", exclude={"image"})
    kept |= {"embedding": embedders.texts.name, "origin": origin}
    if image and embedders.images:
        kept |= {"image": image, "images": embedders.images.name}
    return kept


def text_vectors(text: Text, vector: Vectors) -> dict[str, Any]:
    """The vectors for searches by text; none for a source without words."""
    words = indexed(text)
    return {DENSE: vector.tolist(), SPARSE: document_vector(words)} if words else {}


def image_vectors(image: Vectors, text: Vectors | None) -> dict[str, Any]:
    """The vectors of an image; `text` is its text's vector in the same space, if it has one.

    Yasunaga et al., "Retrieval-Augmented Multimodal Language Modeling" (2022), section 3.1.
    """
    alone = normalised(image)
    mixed = alone if text is None else normalised(alone + normalised(text))
    return {IMAGE: image.tolist(), MIXED: mixed.tolist()}


def passage(found: ScoredPoint) -> Passage:
    """The passage of a search result."""
    return Passage(**_source(found))


def reference(found: ScoredPoint, scale: float, norm: float) -> Reference:
    """The image of a search result, with its scale and its embedding of length `norm`."""
    return Reference(
        **_source(found),
        image=(found.payload or {})["image"],
        scale=scale,
        embedding=embedding(vector_of(found, IMAGE), norm),
    )


def vector_of(found: ScoredPoint, name: str) -> Vectors:
    """A named vector of a point, `""` for the unnamed one; empty if it has none."""
    vectors = found.vector if isinstance(found.vector, dict) else {"": found.vector or ()}
    return np.asarray(vectors.get(name, ()), dtype=np.float32)


def takes_images(client: QdrantClient, collection: str) -> bool:
    """True if a collection was created with an image encoder."""
    return _has(client, collection, IMAGE)


def mismatch(client: QdrantClient, collection: str, embedders: Embedders) -> str:
    """The reason why a collection does not match these embedders; empty if it does."""
    if not _has(client, collection, DENSE):
        return "was written by another tool, which a profile can name in retrieval.collections"
    names = {"embedding": embedders.texts.name}
    if embedders.images:
        names["images"] = embedders.images.name
    for field, name in names.items():
        with_field = Filter(must_not=[IsEmptyCondition(is_empty=PayloadField(key=field))])
        points, _ = client.scroll(collection, with_field, limit=1, with_payload=[field])
        known = str((points[0].payload or {})[field]) if points else ""
        if known not in ("", name):
            return f"was embedded with {known}, not with {name}"
    return ""


def _has(client: QdrantClient, collection: str, vector: str) -> bool:
    vectors = client.get_collection(collection).config.params.vectors
    return isinstance(vectors, dict) and vector in vectors


def _source(found: ScoredPoint) -> dict[str, Any]:
    kept = found.payload or {}
    known = Passage.model_fields.keys() - {"id", "score", "relevance"}
    return {key: kept[key] for key in known if key in kept} | {
        "id": str(found.id),
        "score": found.score,
    }
