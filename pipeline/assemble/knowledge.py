"""The knowledge base, with the embedders that fill and search it."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from pipeline.assemble.guards import open_guards
from pipeline.assemble.models import open_models
from pipeline.assemble.stores import open_store
from pipeline.errors import ConfigError
from pipeline.media.image_store import KNOWLEDGE, ImageStore
from pipeline.models import Models
from pipeline.ports import Judge, Retriever
from pipeline.profile import Profile, QdrantProfile
from pipeline.retrieval.embedders import Embedder, Embedders, ImageEmbedder
from pipeline.settings import Settings

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from pipeline.judging.caption import CaptionJudgeProfile
    from pipeline.retrieval.ingest import Library


def open_knowledge(settings: Settings, patience: float = 0.0) -> "QdrantClient":
    """The knowledge base that the settings name; `patience` is in seconds, for one that another
    process holds. Raises ConfigError and Unavailable.
    """
    from pipeline.retrieval.client import open_client

    key = settings.qdrant_api_key.get_secret_value()
    return open_client(settings.qdrant_url, key, settings.home / "knowledge", patience)


def qdrant_retriever(
    models: Models, knowledge: Callable[[], "QdrantClient"], profile: QdrantProfile
) -> Retriever:
    """The retriever from Qdrant. Raises ModelError."""
    from pipeline.retrieval.retriever import QdrantRetriever

    embedders = open_embedders(profile, models)
    return QdrantRetriever(knowledge, embedders, profile, open_external_embedders(profile, models))


def caption_judge(models: Models, profile: "CaptionJudgeProfile") -> Judge:
    """The judge of captions, which compares texts as the retrieval does. Raises ModelError."""
    from pipeline.judging.caption import CaptionJudge

    return CaptionJudge(models, open_embedder(profile.embedding, models), profile)


def open_embedders(profile: QdrantProfile, models: Models) -> Embedders:
    """The embedders of a profile's own collections. Raises ModelError."""
    texts = open_embedder(profile.embedding, models)
    return Embedders(texts, open_image_embedder(profile.image_encoder, models))


def open_external_embedders(profile: QdrantProfile, models: Models) -> dict[str, Embedder]:
    """By reference, the embedders of external collections, without the profile's own embedder.

    Raises ModelError.
    """
    references = {each.embedding for each in profile.collections.values()}
    return {each: open_embedder(each, models) for each in references - {"", profile.embedding}}


def open_embedder(reference: str, models: Models) -> Embedder:
    """`hashed`, or a text encoder by model reference. Raises ModelError."""
    if reference == "hashed":
        from pipeline.retrieval.lexical import HashedEmbedder

        return HashedEmbedder()
    from pipeline.retrieval.encoders import TextEncoder

    return TextEncoder(reference, models)


def open_image_embedder(reference: str, models: Models) -> ImageEmbedder | None:
    """A CLIP by model reference; None without one. Raises ModelError."""
    if not reference:
        return None
    from pipeline.models.clip import Clip

    return Clip(models, reference, "image_encoder")


def open_library(settings: Settings, profile: Profile) -> "Library":
    """The library that a profile's sources are ingested into.

    Raises ConfigError, ModelError, StoreError and Unavailable.
    """
    from pipeline.retrieval.ingest import Library

    if not isinstance(profile.retrieval, QdrantProfile):
        kind = profile.retrieval.kind
        raise ConfigError(f"retrieval.kind {kind!r} has no library to ingest into")
    store = open_store(settings)
    with ExitStack() as opened:
        models = opened.enter_context(closing(open_models(settings)))
        guard = open_guards(profile.guard, profile.clip, models, store, settings)
        return Library(
            client=opened.enter_context(closing(open_knowledge(settings))),
            embedders=open_embedders(profile.retrieval, models),
            image_store=ImageStore(store, KNOWLEDGE),
            guard=opened.enter_context(closing(guard)),
            opened=opened.pop_all(),
        )
