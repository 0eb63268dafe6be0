"""Ingests files into a collection; ingesting them again changes nothing."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from qdrant_client import QdrantClient
from qdrant_client.models import FieldCondition, Filter, MatchValue, PointStruct

from pipeline.errors import Blocked, JobError, KnowledgeError
from pipeline.job import FrozenModel, digest_of
from pipeline.media.image_store import ImageStore
from pipeline.ports import SourceGuard
from pipeline.retrieval import schema, versions
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.images import image_of
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import BadText, Text

Item = TypeVar("Item")

BATCH = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)


class IngestReport(FrozenModel):
    """Counts of a path's sources by outcome, and the errors."""

    added: int
    changed: int
    unchanged: int
    removed: int
    cut: int = Field(default=0, description="of those added or changed: read in part by an encoder")
    bad: tuple[BadText, ...] = ()


@dataclass(frozen=True)
class Library:
    """The knowledge base to ingest into, with its embedders and image store, and the guard that
    refuses sources.
    """

    client: QdrantClient
    embedders: Embedders
    image_store: ImageStore
    guard: SourceGuard
    opened: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close all that was opened for it: client, guards and models."""
        self.opened.close()


def ingest(
    library: Library,
    path: Path,
    collection: str,
    progress: Callable[[int], None] | None = None,
    *,
    anew: bool = False,
) -> IngestReport:
    """Make a collection hold the sources of a file or folder, beside those of other paths.

    `anew` builds a new version with these sources alone and switches to it at the end, so that
    the embedding can change while jobs run.

    Sources that this path brought earlier and no longer holds are removed. Removal comes last, so
    an interrupted ingest may leave stale or missing sources; running it again fixes that. Bad
    sources are reported and skipped. `progress` receives the number of sources of each batch.
    Raises KnowledgeError, Unavailable and ConfigError.
    """
    texts = read_texts(path)
    client, embedders = library.client, library.embedders
    with calling(client):
        if not _NAME.fullmatch(collection):
            raise KnowledgeError(f"Collection {collection!r}: use 1 to 100 of A-Z a-z 0-9 _ . -")
        version = versions.open_version(client, collection, embedders, anew=anew)
        if problem := schema.mismatch(client, version, embedders):
            raise KnowledgeError(
                f"Collection {collection!r} {problem}; choose another collection, the profile that "
                "it was made with, or --anew to replace it."
            )
    ingestion = _Ingestion(library, version, path)
    for batch in _batches(ingestion.valid(texts)):
        ingestion.put(batch)
        if progress:
            progress(len(batch))
    ingestion.remove_rest(of_all=anew)
    if anew:
        with calling(client):
            versions.switch_to(client, collection, version)
    return IngestReport(**ingestion.counts, bad=tuple(ingestion.bad))


@dataclass(frozen=True)
class _Source:
    """A source to store; `image` is the key of its image, empty without one."""

    text: Text
    image: str = ""

    @property
    def identity(self) -> str:
        return schema.identity(self.text, self.image)


class _Ingestion:
    """One pass over a path."""

    def __init__(self, library: Library, collection: str, path: Path) -> None:
        self._library, self._collection = library, collection
        self._client, self._embedders = library.client, library.embedders
        self._origin = digest_of(str(path.resolve()))
        with calling(library.client):
            holds_images = schema.takes_images(library.client, collection)
        self._takes_images = holds_images and library.embedders.images is not None
        self._seen = set[str]()
        self.bad = list[BadText]()
        self.counts = dict.fromkeys(("added", "changed", "unchanged", "removed", "cut"), 0)

    def valid(self, texts: Iterable[Text | BadText]) -> Iterator[_Source]:
        """The sources to store, each once, their images already in the image store; the others go
        to `bad`.
        """
        for text in texts:
            if isinstance(text, BadText):
                self.bad.append(text)
                continue
            image, problem = "", None
            try:
                said = f"{text.title}. {text.text}"
                shown = image_of(text.image) if text.image and self._takes_images else None
                self._library.guard.check_source(said, shown)
                if shown:
                    image = self._library.image_store.put(shown)
                elif text.image:
                    problem = "the profile or the collection is without retrieval.image_encoder"
            except (Blocked, JobError) as error:
                problem = error.detail
            except OSError as error:
                problem = str(error.strerror)
            source = _Source(text, image)
            if problem is not None:
                self.bad.append(BadText(file=text.source, line=0, reason=problem))
            elif source.identity not in self._seen:
                self._seen.add(source.identity)
                yield source

    def put(self, sources: list[_Source]) -> None:
        """Store the sources that are new or whose payload has changed."""
        wanted = {
            source.identity: schema.payload(
                source.text, source.image, self._embedders, self._origin
            )
            for source in sources
        }
        with calling(self._client):
            found = self._client.retrieve(self._collection, list(wanted), with_payload=True)
        stored = {str(record.id): record.payload for record in found}
        fresh = [s for s in sources if stored.get(s.identity) != wanted[s.identity]]
        changed = sum(source.identity in stored for source in fresh)
        self.counts["changed"] += changed
        self.counts["added"] += len(fresh) - changed
        self.counts["unchanged"] += len(sources) - len(fresh)
        if not fresh:
            return
        encoder = self._embedders.images
        for source in fresh:
            words = schema.indexed(source.text)
            whole = self._embedders.texts.reads_whole(words)
            if source.image and encoder:
                whole = whole and encoder.reads_whole(words)
            self.counts["cut"] += not whole
        vectors = self._vectors(fresh)
        points = [PointStruct(id=k, vector=v, payload=wanted[k]) for k, v in vectors.items()]
        with calling(self._client):
            self._client.upsert(self._collection, points, wait=True)

    def remove_rest(self, *, of_all: bool) -> None:
        """Remove the sources that this path brought earlier and did not bring now; with `of_all`,
        the sources of other paths too.
        """
        origin = FieldCondition(key="origin", match=MatchValue(value=self._origin))
        mine = None if of_all else Filter(must=[origin])
        gone, offset = list[str](), None
        while True:
            with calling(self._client):
                records, offset = self._client.scroll(
                    self._collection, mine, limit=1000, offset=offset, with_payload=False
                )
            gone += [str(record.id) for record in records if str(record.id) not in self._seen]
            if offset is None:
                break
        for batch in _batches(gone):
            with calling(self._client):
                self._client.delete(self._collection, list(batch), wait=True)
        self.counts["removed"] = len(gone)

    def _vectors(self, sources: list[_Source]) -> dict[str, dict[str, Any]]:
        """The vectors of each source by its identity; each model is called once."""
        encoder = self._embedders.images
        dense = self._embedders.texts.embed([schema.indexed(source.text) for source in sources])
        vectors = {
            source.identity: schema.text_vectors(source.text, vector)
            for source, vector in zip(sources, dense, strict=True)
        }
        shown = [source for source in sources if source.image]
        if shown and encoder:
            captions = [schema.indexed(source.text) for source in shown]
            texts = encoder.encode_texts(captions)
            images = encoder.encode_images(
                self._library.image_store.get(source.image) for source in shown
            )
            for source, caption, text, image in zip(shown, captions, texts, images, strict=True):
                vectors[source.identity] |= schema.image_vectors(image, text if caption else None)
        return vectors


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch
