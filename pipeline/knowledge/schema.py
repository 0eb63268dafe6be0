"""How a collection looks in Qdrant: two vectors for each passage, and its payload."""

import uuid
from typing import Any

from qdrant_client import QdrantClient
from qdrant_client.models import (
    Distance,
    Modifier,
    PayloadSchemaType,
    PointStruct,
    SparseVectorParams,
    VectorParams,
)

from pipeline.job import Passage
from pipeline.knowledge.client import is_local
from pipeline.knowledge.embedding import Vectors
from pipeline.knowledge.reading.texts import Text
from pipeline.knowledge.sparse import document_vector

_NOT_KEPT = {"license", "image"}
DENSE, SPARSE = "dense", "bm25"
_NAMESPACE = uuid.UUID("5b4a4f6e-8d0c-5d54-9d6a-7f0a2c6b3e11")


def create(client: QdrantClient, collection: str, size: int) -> None:
    """Make an empty collection for passages whose dense vectors have `size` components."""
    client.create_collection(
        collection,
        # vectors come with length 1, so that the dot product is the cosine; and it is defined
        # for a text without a word, whose vector is zero
        vectors_config={DENSE: VectorParams(size=size, distance=Distance.DOT)},
        sparse_vectors_config={SPARSE: SparseVectorParams(modifier=Modifier.IDF)},
    )
    if not is_local(client):
        client.create_payload_index(collection, "origin", PayloadSchemaType.KEYWORD)


def identity(text: Text) -> str:
    """The same id for the same words from the same source, so that ingesting again changes
    nothing.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{text.source}\n{text.text}"))


def indexed(text: Text) -> str:
    """What is searched: the title too, which says what a passage is about."""
    return f"{text.title}. {text.text}" if text.title else text.text


def payload(text: Text, embedding: str, origin: str) -> dict[str, Any]:
    """What is kept beside the vectors: the passage, what embedded it, and where it came from."""
    kept = text.model_dump(mode="json", exclude=_NOT_KEPT)
    return kept | {"embedding": embedding, "origin": origin}


def point(text: Text, vector: Vectors, kept: dict[str, Any]) -> PointStruct:
    """The passage as Qdrant stores it."""
    vectors = {DENSE: vector.tolist(), SPARSE: document_vector(indexed(text))}
    return PointStruct(id=identity(text), vector=vectors, payload=kept)


def passage(point_id: Any, kept: dict[str, Any], score: float) -> Passage:
    """The passage that a search found."""
    text = Text.model_validate({key: kept[key] for key in Text.model_fields if key in kept})
    return Passage(id=str(point_id), score=score, **text.model_dump(exclude=_NOT_KEPT))


def embedding_of(client: QdrantClient, collection: str) -> str:
    """What embedded a collection's passages; empty where there is none yet."""
    points, _ = client.scroll(collection, limit=1, with_payload=["embedding"])
    return str((points[0].payload or {}).get("embedding", "?")) if points else ""
