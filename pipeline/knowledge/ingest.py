"""Brings files into a collection; doing it again changes nothing."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from qdrant_client import QdrantClient
from qdrant_client.models import FieldCondition, Filter, MatchValue

from pipeline.errors import KnowledgeError
from pipeline.job import Noun, digest_of
from pipeline.knowledge import schema
from pipeline.knowledge.client import calling
from pipeline.knowledge.embedding import Embedder
from pipeline.knowledge.reading.reader import read_texts
from pipeline.knowledge.reading.texts import BadText, Text

Item = TypeVar("Item")

BATCH = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)


class IngestReport(Noun):
    """What became of a path's passages."""

    added: int
    changed: int
    unchanged: int
    removed: int
    bad: tuple[BadText, ...] = ()


def ingest(
    client: QdrantClient,
    path: Path,
    collection: str,
    embedder: Embedder,
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Make a collection hold what the file or folder says now, beside what other paths brought.

    A passage that this path brought earlier and no longer holds is removed. Bad texts are
    reported and the rest goes in. `progress` is told how many passages each step brought.
    Raises KnowledgeError, Unavailable and ConfigError.
    """
    texts = read_texts(path)
    with calling(client):
        _prepare(client, collection, embedder)
    ingestion = _Ingestion(client, collection, embedder, path)
    for batch in _batches(ingestion.good(texts)):
        ingestion.put(batch)
        (progress or _silent)(len(batch))
    ingestion.remove_rest()
    return IngestReport(**ingestion.tally, bad=tuple(ingestion.bad))


class _Ingestion:
    """One pass over a path."""

    def __init__(
        self, client: QdrantClient, collection: str, embedder: Embedder, path: Path
    ) -> None:
        self._client, self._collection, self._embedder = client, collection, embedder
        self._origin = digest_of(str(path.resolve()))
        self._seen = set[str]()
        self.bad = list[BadText]()
        self.tally = dict.fromkeys(("added", "changed", "unchanged", "removed"), 0)

    def good(self, texts: Iterable[Text | BadText]) -> Iterator[Text]:
        """The passages, each once; what is bad is set aside."""
        for text in texts:
            if isinstance(text, BadText):
                self.bad.append(text)
            elif text.text and (identity := schema.identity(text)) not in self._seen:
                self._seen.add(identity)
                yield text

    def put(self, texts: list[Text]) -> None:
        """Store those that are new or have another payload than before."""
        wanted = {
            schema.identity(text): schema.payload(text, self._embedder.name, self._origin)
            for text in texts
        }
        with calling(self._client):
            found = self._client.retrieve(self._collection, list(wanted), with_payload=True)
        stored = {str(record.id): record.payload for record in found}
        fresh = [t for t in texts if stored.get(schema.identity(t)) != wanted[schema.identity(t)]]
        changed = sum(schema.identity(text) in stored for text in fresh)
        self.tally["changed"] += changed
        self.tally["added"] += len(fresh) - changed
        self.tally["unchanged"] += len(texts) - len(fresh)
        if not fresh:
            return
        vectors = self._embedder.embed([schema.indexed(text) for text in fresh])
        points = [
            schema.point(text, vector, wanted[schema.identity(text)])
            for text, vector in zip(fresh, vectors, strict=True)
        ]
        with calling(self._client):
            self._client.upsert(self._collection, points, wait=True)

    def remove_rest(self) -> None:
        """Remove what this path brought earlier and no longer holds."""
        mine = Filter(must=[FieldCondition(key="origin", match=MatchValue(value=self._origin))])
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


def _prepare(client: QdrantClient, collection: str, embedder: Embedder) -> None:
    if not _NAME.fullmatch(collection):
        raise KnowledgeError(f"Collection {collection!r}: use 1 to 100 of A-Z a-z 0-9 _ . -")
    if not client.collection_exists(collection):
        schema.create(client, collection, embedder.size)
        return
    known = schema.embedding_of(client, collection)
    if known and known != embedder.name:
        raise KnowledgeError(
            f"Collection {collection!r} was embedded with {known}, not with {embedder.name}; "
            "choose another collection, or the profile that it was made with."
        )


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _silent(_: int) -> None:
    pass
