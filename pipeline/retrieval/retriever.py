"""Finds passages and images by hybrid search: words and vectors at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from time import monotonic
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import (
    Condition,
    FieldCondition,
    Filter,
    IsEmptyCondition,
    MatchAny,
    MatchValue,
    PayloadField,
    QueryRequest,
    ScoredPoint,
)

from pipeline.errors import JobError
from pipeline.job import Context, Job, Passage, Reference
from pipeline.profile import CollectionProfile, QdrantProfile
from pipeline.retrieval import schema, versions
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedder, Embedders, Vectors, normalised
from pipeline.retrieval.external import ExternalCollection, open_external
from pipeline.retrieval.lexical import HashedEmbedder, evenly, query_vector
from pipeline.retrieval.relevance import SAMPLE, Rarity, Relevance
from pipeline.telemetry import notice

Item = TypeVar("Item")
Source = TypeVar("Source", bound=Passage)
Reader = Callable[[ScoredPoint], Passage | None]
"""Reads the text of a search result, if it has one."""

DEPTH = 4
"""Candidates of each search, as a multiple of the requested number of sources."""
LIKENESS = 1 / 3
"""Weight of image similarity when ranking images; the rest is text search. Below 0.5, so that an
exact match of a name beats an image that is merely similar.
"""

ROUNDING = 1e-5
"""Tolerance of a cosine: with `alike` 1 nothing counts as a duplicate, not even an exact copy."""

SAMPLED_SECONDS = 60.0
"""Time after which a collection's texts are sampled again."""

_CUT = "the encoder that finds {} read the beginning of the keywords alone"
_NOTHING = "nothing in collection {!r} reaches retrieval.floor {:g}: the best has {:.2f}"


class QdrantRetriever:
    """A Retriever: fuses dense vectors and BM25, and for images their similarity to the keywords.

    The query is a job's keywords. Scores are from 0 to 1 and cannot be compared across jobs
    (`fused`); so the floor applies to the relevance of a text (`Relevance`), whichever search found
    it. An image without a text has none and is kept: it says nothing, and may be there for its
    style. Of passages with nearly equal wording, and of images that look nearly equal, the best is
    kept; wording is compared by hashing, because for a text encoder two facts that differ in one
    word are nearly equal.
    """

    def __init__(
        self,
        client: Callable[[], QdrantClient],
        embedders: Embedders,
        profile: QdrantProfile,
        external: Mapping[str, Embedder] = MappingProxyType({}),
    ) -> None:
        self._open, self._embedders, self._profile = client, embedders, profile
        own = {"": embedders.texts, profile.embedding: embedders.texts}
        self._by_reference = own | dict(external)
        self._wording = HashedEmbedder(evenly)
        self._usable = set[str]()
        self._external = dict[str, ExternalCollection]()
        self._rarities = dict[str, tuple[float, Rarity]]()
        self._sampling = Lock()

    def retrieve(self, job: Job) -> Context:
        """At most `job.passages` passages and `job.references` images of `job.collection`, best
        first.

        Raises JobError for a collection that is missing, does not match the profile, or has no
        images although `references` is above 0; Unavailable if the knowledge base does not answer.
        """
        if not job.collection or not (job.passages or job.references):
            return Context()
        if written := self._profile.collections.get(job.collection):
            return Context(passages=self._external_passages(job, written))
        if job.collection not in self._usable:
            self._check(job.collection)
        vector = _embedded(job, self._embedders.texts)
        images = self._images(job, vector) if job.references else []
        passages: tuple[Passage, ...] = ()
        if job.passages and vector.any():
            searches = self._word_searches(vector, job.keywords, DEPTH * job.passages)
            found = self._search(job, searches, _filter(job), self._floored(job, schema.DENSE))
            ranked = [
                (schema.passage(point), schema.vector_of(point, schema.DENSE))
                for point in self._fused(job, found, self._word_shares)
            ]
            passages = self._distinct(
                self._relevant(job, ranked, vector, schema.passage), job.passages
            )
        return Context(passages=passages, references=tuple(images))

    @property
    def _client(self) -> QdrantClient:
        # opened by the first job with retrieval: a local folder serves one process alone
        return self._open()

    def _external_passages(self, job: Job, written: CollectionProfile) -> tuple[Passage, ...]:
        """Passages of an external collection, by its dense vector alone."""
        if job.references:
            raise JobError(
                f"Collection {job.collection!r} was written by {written.written_by} and holds no "
                "images; ask it with references = 0."
            )
        if job.collection not in self._external:
            embedder = self._by_reference[written.embedding]
            self._external[job.collection] = open_external(
                self._client, job.collection, written, embedder
            )
        external = self._external[job.collection]
        vector = _embedded(job, external.embedder)
        if not vector.any():
            return ()
        search = external.search(vector, DEPTH * job.passages)
        wanted = _filter(job, prefix=external.layout.prefix)
        (found,) = self._search(job, [search], wanted, self._floored(job, external.vector))
        read = [(external.passage(each), schema.vector_of(each, external.vector)) for each in found]
        ranked = [(passage, dense) for passage, dense in read if passage]
        relevant = self._relevant(job, ranked, vector, external.passage)
        return self._distinct(relevant, job.passages)

    def _images(self, job: Job, vector: Vectors) -> list[Reference]:
        encoder = self._embedders.images
        if encoder is None:
            raise JobError("images are asked for, and the profile has no retrieval.image_encoder")
        depth = DEPTH * job.references
        query = normalised(encoder.encode_texts([job.keywords])[0])
        if not encoder.reads_whole(job.keywords):
            notice(_CUT.format("images"))
        searches = [QueryRequest(query=query.tolist(), using=schema.MIXED, limit=depth)]
        shares = [LIKENESS]
        if vector.any():
            searches += self._word_searches(vector, job.keywords, depth)
            shares += [(1 - LIKENESS) * share for share in self._word_shares]
        wanted = _filter(job, image=True)
        vectors = [schema.IMAGE, *self._floored(job, schema.DENSE)]
        found = self._search(job, searches, wanted, vectors)
        scale, norm = job.reference_scale, self._profile.image_norm
        ranked = [
            (schema.reference(point, scale, norm), schema.vector_of(point, schema.DENSE))
            for point in self._fused(job, found, shares)
        ]
        return different(
            self._relevant(job, ranked, vector, schema.passage),
            lambda reference: np.asarray(reference.embedding, dtype=np.float32),
            self._profile.alike,
            job.references,
        )

    def _floored(self, job: Job, vector: str) -> list[str]:
        """The texts' vector, where a floor needs it."""
        return [vector] if self._profile.floor_of(job.collection) else []

    def _relevant(
        self, job: Job, ranked: Sequence[tuple[Source, Vectors]], vector: Vectors, read: Reader
    ) -> Iterator[Source]:
        """The sources, each given with its text's vector, that reach the floor, with their
        relevance; a notice where none does.
        """
        floor = self._profile.floor_of(job.collection)
        if not floor:
            yield from (source for source, _ in ranked)
            return
        relevance = Relevance(job.keywords, vector, self._rarity(job.collection, read))
        best, none = 0.0, bool(ranked)
        for source, own in ranked:
            value = relevance(schema.indexed(source), own) if source.text else None
            if value is None or value >= floor:
                none = False
                yield source.model_copy(update={"relevance": value})
            else:
                best = max(best, value)
        if none:
            notice(_NOTHING.format(job.collection, floor, best))

    def _rarity(self, collection: str, read: Reader) -> Rarity:
        """The rarity of words in a collection, by its texts of the lowest ids, which are hashes in
        collections of our own: a random sample. Raises JobError.
        """
        with self._sampling:
            since, rarity = self._rarities.get(collection, (0.0, None))
            if rarity is None or monotonic() - since > SAMPLED_SECONDS:
                try:
                    with calling(self._client):
                        records, _ = self._client.scroll(
                            collection, limit=SAMPLE, with_payload=True
                        )
                except (UnexpectedResponse, ValueError) as error:
                    raise _unsearchable(collection, error) from error
                points = (
                    ScoredPoint(id=each.id, version=0, score=0.0, payload=each.payload)
                    for each in records
                )
                said = (each for each in map(read, points) if each and each.text)
                rarity = Rarity(map(schema.indexed, said))
                self._rarities[collection] = monotonic(), rarity
            return rarity

    def _word_searches(self, vector: Vectors, keywords: str, depth: int) -> list[QueryRequest]:
        dense = QueryRequest(query=vector.tolist(), using=schema.DENSE, limit=depth)
        return [dense, QueryRequest(query=query_vector(keywords), using=schema.SPARSE, limit=depth)]

    @property
    def _word_shares(self) -> tuple[float, float]:
        return self._profile.dense, 1 - self._profile.dense

    def _search(
        self,
        job: Job,
        searches: Sequence[QueryRequest],
        wanted: Filter | None,
        vectors: Sequence[str],
    ) -> list[list[ScoredPoint]]:
        """The results of each search, sent in one request; each point with the named vectors."""
        options = {
            "filter": wanted,
            "with_payload": True,
            # the unnamed one has no other name than "all"
            "with_vector": (list(vectors) or None) if all(vectors) else True,
        }
        try:
            with calling(self._client):
                answers = self._client.query_batch_points(
                    job.collection, [each.model_copy(update=options) for each in searches]
                )
        except (UnexpectedResponse, ValueError) as error:
            raise _unsearchable(job.collection, error) from error
        return [answer.points for answer in answers]

    def _fused(
        self, job: Job, found: Sequence[Sequence[ScoredPoint]], shares: Sequence[float]
    ) -> list[ScoredPoint]:
        """The fused results. Checks the collection again if another embedder made one of them:
        the name may have been switched to a new version.
        """
        ranked = fused(found, shares)
        name = self._embedders.texts.name
        if any((point.payload or {}).get("embedding") != name for point in ranked):
            self._check(job.collection)
        return ranked

    def _distinct(self, ranked: Iterable[Passage], count: int) -> tuple[Passage, ...]:
        """The best passages without near duplicates in wording."""

        def wording(passage: Passage) -> Vectors:
            (vector,) = self._wording.embed([schema.indexed(passage)])
            return np.asarray(vector)

        return tuple(different(ranked, wording, self._profile.alike, count))

    def _check(self, collection: str) -> None:
        """Raise JobError for a collection that cannot be searched; remember one that can."""
        names = versions.names(self._client)
        if collection not in names:
            there = ", ".join(filter(self._profile.allows, names)) or "none"
            raise JobError(
                f"There is no collection {collection!r}; there are: {there}. "
                f"Make it with `pressrun ingest PATH --collection {collection}`."
            )
        with calling(self._client):
            problem = schema.mismatch(self._client, collection, self._embedders)
            filled = bool(self._client.count(collection, exact=False).count)
        if problem:
            raise JobError(f"Collection {collection!r} {problem}; ingest it into another one.")
        if filled:
            self._usable.add(collection)


def _embedded(job: Job, embedder: Embedder) -> Vectors:
    if not embedder.reads_whole(job.keywords):
        notice(_CUT.format("texts"))
    return np.asarray(embedder.embed([job.keywords])[0])


def _filter(job: Job, *, image: bool = False, prefix: str = "") -> Filter | None:
    """The filter for a job's sources: every tag, one of the licences, an image."""
    must, tags = list[Condition](), f"{prefix}tags"
    must += [FieldCondition(key=tags, match=MatchValue(value=tag)) for tag in job.tags]
    if job.licenses:
        must.append(FieldCondition(key=f"{prefix}license", match=MatchAny(any=list(job.licenses))))
    absent = [IsEmptyCondition(is_empty=PayloadField(key="image"))] if image else []
    return Filter(must=must, must_not=absent) if must or absent else None


def fused(found: Sequence[Sequence[ScoredPoint]], shares: Sequence[float]) -> list[ScoredPoint]:
    """All points that the searches found, best first; `shares` are the searches' weights.

    A point's score is the sum over the searches that found it of share × its score there, scaled
    from 0 for the last of them to 1 for the first. Bruch, Gai and Ingber, "An Analysis of Fusion
    Functions for Hybrid Retrieval" (2023, arXiv:2210.11934), 3: the convex combination.
    """
    points, scores = dict[object, ScoredPoint](), dict[object, float]()
    for results, share in zip(found, shares, strict=True):
        values = np.asarray([point.score for point in results], dtype=np.float32)
        width = float(np.ptp(values)) if len(values) else 0.0
        scaled = (values - values.min()) / width if width else np.ones_like(values)
        for point, value in zip(results, scaled, strict=True):
            points.setdefault(point.id, point)
            scores[point.id] = scores.get(point.id, 0.0) + share * value
    ranked = sorted(points, key=lambda each: -scores[each])
    return [points[each].model_copy(update={"score": scores[each]}) for each in ranked]


def different(
    ranked: Iterable[Item], direction: Callable[[Item], Vectors], alike: float, count: int
) -> list[Item]:
    """The best `count` items, without near duplicates: items whose cosine with a better one is
    above `alike`. Yasunaga et al., "Retrieval-Augmented Multimodal Language Modeling" (2022), 3.1.
    """
    kept, directions = list[Item](), list[Vectors]()
    for item in ranked:
        if len(kept) == count:
            break
        own = normalised(direction(item))
        if all(own @ other <= alike + ROUNDING for other in directions):
            kept.append(item)
            directions.append(own)
    return kept


def _unsearchable(collection: str, error: Exception) -> JobError:
    return JobError(f"Collection {collection!r} cannot be searched: {error}")
