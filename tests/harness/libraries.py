"""Libraries for tests: collections of a client, their images in a folder."""

from pathlib import Path

from qdrant_client import QdrantClient

from pipeline.media.image_store import KNOWLEDGE, ImageStore
from pipeline.retrieval.embedders import Embedder, Embedders, ImageEmbedder
from pipeline.retrieval.ingest import Library
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.storage.folder import FolderStore
from pipeline.writing.guard import TermGuard


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
        client, embedders, ImageStore(FolderStore(folder), KNOWLEDGE), TermGuard(blocked)
    )
