"""Libraries for tests: collections of a client, their images in a folder."""

from pathlib import Path

from qdrant_client import QdrantClient

from pipeline.media.image_store import KNOWLEDGE, ImageStore
from pipeline.retrieval.embedders import Embedder, Embedders, ImageEmbedder
from pipeline.retrieval.ingest import Library
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.safety.guards import Guards, TextGuard
from pipeline.safety.terms import Terms
from pipeline.storage.folder import FolderStore


def blocking(*terms: str) -> Guards:
    """Guards that refuse texts with these terms, and drop what they can."""
    places = ("keywords", "passages", "prompt")
    return Guards([TextGuard("terms", "drop", places, Terms(terms).reason)] if terms else [])


def library(
    client: QdrantClient,
    folder: Path,
    texts: Embedder | None = None,
    images: ImageEmbedder | None = None,
    blocked: tuple[str, ...] = (),
) -> Library:
    """A library of hashed words, without images unless something embeds them."""
    embedders = Embedders(texts or HashedEmbedder(), images)
    return Library(
        client, embedders, ImageStore(FolderStore(folder), KNOWLEDGE), blocking(*blocked)
    )
