"""Brings files into a collection; doing it again changes nothing."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from qdrant_client import QdrantClient
from qdrant_client.models import FieldCondition, Filter, MatchValue, PointStruct

from pipeline.errors import Blocked, JobError, KnowledgeError
from pipeline.job import FrozenModel, digest_of
from pipeline.ports import Guard
from pipeline.retrieval import schema, versions
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.image_store import ImageStore, read_image
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import BadText, Text

Item = TypeVar("Item")

BATCH = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)


class IngestReport(FrozenModel):
    """What became of a path's sources."""

    added: int
    changed: int
    unchanged: int
    removed: int
    cut: int = Field(default=0, description="of those added or changed: read in part by an encoder")
    bad: tuple[BadText, ...] = ()


@dataclass(frozen=True)
class Library:
    """Where sources go: the knowledge base, what embeds them, who keeps their images, and who
    refuses what must not be in.
    """

    client: QdrantClient
    embedders: Embedders
    image_store: ImageStore
    guard: Guard


def ingest(
    library: Library,
    path: Path,
    collection: str,
    progress: Callable[[int], None] | None = None,
    *,
    anew: bool = False,
) -> IngestReport:
    """Make a collection hold what the file or folder says now, beside what other paths brought.

    `anew` makes one that holds nothing else, beside the standing one, whose place it takes when all
    is in: for another embedding, while jobs are at work.

    A source that this path brought earlier and no longer holds is removed, last of all: after an
    interruption the collection lacks or has too much, and the next time mends it. Bad sources are
    reported and the rest goes in. `progress` is told how many sources each step brought.
    Raises KnowledgeError, Unavailable and ConfigError.
    """
    texts = read_texts(path)
    with calling(library.client):
        version = _prepare(library, collection, anew=anew)
    ingestion = _Ingestion(library, version, path)
    for batch in _batches(ingestion.good(texts)):
        ingestion.put(batch)
        (progress or _silent)(len(batch))
    ingestion.remove_rest(of_all=anew)
    if anew:
        with calling(library.client):
            versions.stand_for(library.client, collection, version)
    return IngestReport(**ingestion.tally, bad=tuple(ingestion.bad))


@dataclass(frozen=True)
class _Source:
    """A source that may go in; `image` is the key of its image, empty without one."""

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
        self.tally = dict.fromkeys(("added", "changed", "unchanged", "removed", "cut"), 0)

    def good(self, texts: Iterable[Text | BadText]) -> Iterator[_Source]:
        """The sources, each once; what is bad is set aside."""
        for text in texts:
            source = text if isinstance(text, BadText) else self._source(text)
            if isinstance(source, BadText):
                self.bad.append(source)
            elif source.identity not in self._seen:
                self._seen.add(source.identity)
                yield source

    def put(self, sources: list[_Source]) -> None:
        """Store those that are new or have another payload than before."""
        wanted = {source.identity: self._payload(source) for source in sources}
        with calling(self._client):
            found = self._client.retrieve(self._collection, list(wanted), with_payload=True)
        stored = {str(record.id): record.payload for record in found}
        fresh = [s for s in sources if stored.get(s.identity) != wanted[s.identity]]
        changed = sum(source.identity in stored for source in fresh)
        self.tally["changed"] += changed
        self.tally["added"] += len(fresh) - changed
        self.tally["unchanged"] += len(sources) - len(fresh)
        if not fresh:
            return
        self.tally["cut"] += sum(map(self._is_cut, fresh))
        vectors = self._vectors(fresh)
        points = [PointStruct(id=k, vector=v, payload=wanted[k]) for k, v in vectors.items()]
        with calling(self._client):
            self._client.upsert(self._collection, points, wait=True)

    def remove_rest(self, *, of_all: bool) -> None:
        """Remove what this path brought earlier and no longer holds; or whatever it does not."""
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
        self.tally["removed"] = len(gone)

    def _source(self, text: Text) -> _Source | BadText:
        """What of a text may go in; its image is kept by then."""
        try:
            self._library.guard.check_text(f"{text.title}. {text.text}")
            if text.image is None:
                return _Source(text)
            if not self._takes_images:
                return _bad(
                    text, "the profile or the collection is without retrieval.image_encoder"
                )
            return _Source(text, self._library.image_store.put(read_image(text.image)))
        except (Blocked, JobError) as error:
            return _bad(text, error.detail)
        except OSError as error:
            return _bad(text, str(error.strerror))

    def _payload(self, source: _Source) -> dict[str, Any]:
        return schema.payload(source.text, source.image, self._embedders, self._origin)

    def _vectors(self, sources: list[_Source]) -> dict[str, dict[str, Any]]:
        """By identity, the vectors of each; each model is called once."""
        words = [schema.indexed(source.text) for source in sources]
        dense = self._embedders.texts.embed(words)
        vectors = {
            source.identity: schema.text_vectors(source.text, vector)
            for source, vector in zip(sources, dense, strict=True)
        }
        for identity, of_image in self._image_vectors(sources):
            vectors[identity] |= of_image
        return vectors

    def _is_cut(self, source: _Source) -> bool:
        words, images = schema.indexed(source.text), self._embedders.images
        whole = self._embedders.texts.reads_whole(words)
        if source.image and images:
            whole = whole and images.reads_whole(words)
        return not whole

    def _image_vectors(self, sources: list[_Source]) -> Iterator[tuple[str, dict[str, Any]]]:
        shown = [source for source in sources if source.image]
        if not (shown and self._embedders.images):
            return
        words = [schema.indexed(source.text) for source in shown]
        texts = self._embedders.images.embed_texts(words)
        images = self._embedders.images.embed_images(
            self._library.image_store.get(source.image) for source in shown
        )
        for source, word, text, image in zip(shown, words, texts, images, strict=True):
            yield source.identity, schema.image_vectors(image, text if word else None)


def _prepare(library: Library, collection: str, *, anew: bool) -> str:
    """Answers the version of the collection to write into."""
    client, embedders = library.client, library.embedders
    if not _NAME.fullmatch(collection):
        raise KnowledgeError(f"Collection {collection!r}: use 1 to 100 of A-Z a-z 0-9 _ . -")
    version = versions.open_version(client, collection, embedders, anew=anew)
    if problem := schema.mismatch(client, version, embedders):
        raise KnowledgeError(
            f"Collection {collection!r} {problem}; choose another collection, the profile that it "
            "was made with, or --anew to replace it."
        )
    return version


def _bad(text: Text, reason: str) -> BadText:
    return BadText(file=text.source, line=0, reason=reason)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _silent(_: int) -> None:
    pass
