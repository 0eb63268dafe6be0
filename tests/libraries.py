"""Libraries for tests: collections of a client, their images in a folder."""

from pathlib import Path

from qdrant_client import QdrantClient

from pipeline.guarding.terms import TermGuard
from pipeline.knowledge.embedding import Embedder, Embedders, ImageEmbedder
from pipeline.knowledge.hashing import HashedEmbedder
from pipeline.knowledge.ingest import Library
from pipeline.knowledge.shelf import Shelf
from pipeline.storing.folder import FolderStore


def library(
    client: QdrantClient,
    folder: Path,
    texts: Embedder | None = None,
    images: ImageEmbedder | None = None,
    blocked: tuple[str, ...] = (),
) -> Library:
    """A library of hashed words, without images unless something embeds them."""
    embedders = Embedders(texts or HashedEmbedder(), images)
    return Library(client, embedders, Shelf(FolderStore(folder)), TermGuard(blocked))
