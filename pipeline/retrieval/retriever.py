"""Finds texts and images, by words and by likeness at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

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
from pipeline.job import Context, Job, Passage
from pipeline.profile import CollectionProfile, RetrievalProfile
from pipeline.retrieval import schema, versions
from pipeline.retrieval.bm25 import query_vector
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedder, Embedders, Vectors, normalised
from pipeline.retrieval.external import ExternalCollection, open_external
from pipeline.retrieval.hashed import HashedEmbedder, evenly
from pipeline.retrieval.ranking import different, fused
from pipeline.telemetry import notice

DEPTH = 4
"""Each search looks this many times deeper than the sources asked for."""
LIKENESS = 1 / 3
"""The share of what images show in finding them; the rest is what is said of them. Below half:
a name on which both searches for words agree is not outvoted by an image that only looks apt.
"""

_CUT = "the encoder that finds {} read the beginning of the keywords alone"


class QdrantRetriever:
    """A Retriever: dense vectors and BM25 side by side, fused; for images their likeness to the
    keywords as well.

    A job asks with its keywords alone. A source's score is from 0 to 1 and says nothing across
    jobs (`ranking.fused`). The floor is for the dense likeness of keywords and passage, whichever
    search found it. Of passages with nearly the same wording, and of images that look nearly the
    same, the best is taken: two facts that differ in one word are close for a text encoder.
    """

    def __init__(
        self,
        client: Callable[[], QdrantClient],
        embedders: Embedders,
        profile: RetrievalProfile,
        others: Mapping[str, Embedder] = MappingProxyType({}),
    ) -> None:
        self._open, self._embedders, self._profile = client, embedders, profile
        self._others = {"": embedders.texts, profile.embedding: embedders.texts} | dict(others)
        self._wording = HashedEmbedder(evenly)
        self._usable = set[str]()
        self._external = dict[str, ExternalCollection]()

    def retrieve(self, job: Job) -> Context:
        """At most `job.passages` passages and `job.references` images of `job.collection`, best
        first.

        Raises JobError for a collection that is not there, was made with another embedding or
        otherwise than the profile says, or holds no images where some are asked for; Unavailable
        when the knowledge base does not answer.
        """
        if not job.collection or not (job.passages or job.references):
            return Context()
        if written := self._profile.collections.get(job.collection):
            return Context(passages=self._theirs(job, written))
        if job.collection not in self._usable:
            self._check(job.collection)
        vector = _embedded(job, self._embedders.texts)
        images = self._images(job, vector) if job.references else []
        norm = self._profile.image_norm
        return Context(
            passages=self._texts(job, vector) if job.passages and vector.any() else (),
            references=tuple(schema.reference(p, job.reference_scale, norm) for p in images),
        )

    @property
    def _client(self) -> QdrantClient:
        # opened by the first job that asks: a local folder serves one process alone
        return self._open()

    def _theirs(self, job: Job, written: CollectionProfile) -> tuple[Passage, ...]:
        """Of a collection that another tool wrote, by its dense vector alone."""
        if job.references:
            raise JobError(
                f"Collection {job.collection!r} was written by {written.written_by} and holds no "
                "images; ask it with references = 0."
            )
        theirs = self._opened(job.collection, written)
        vector = _embedded(job, theirs.embedder)
        if not vector.any():
            return ()
        search = theirs.search(vector, DEPTH * job.passages, self._profile.floor)
        wanted = _wanted(job, prefix=theirs.layout.prefix)
        (found,) = self._search(job, [search], wanted)
        return self._worded_apart(filter(None, map(theirs.passage, found)), job.passages)

    def _opened(self, collection: str, written: CollectionProfile) -> ExternalCollection:
        if collection not in self._external:
            embedder = self._others[written.embedding]
            self._external[collection] = open_external(self._client, collection, written, embedder)
        return self._external[collection]

    def _texts(self, job: Job, vector: Vectors) -> tuple[Passage, ...]:
        floor = self._profile.floor
        searches = self._word_searches(vector, job.keywords, DEPTH * job.passages)
        found = self._search(job, searches, _wanted(job), schema.DENSE if floor else None)
        near = [
            p
            for p in self._fused(job, found, self._word_shares)
            if not floor or _dense(p) @ vector >= floor
        ]
        return self._worded_apart(map(schema.passage, near), job.passages)

    def _images(self, job: Job, vector: Vectors) -> list[ScoredPoint]:
        encoder = self._embedders.images
        if encoder is None:
            raise JobError("images are asked for, and the profile has no retrieval.image_encoder")
        depth = DEPTH * job.references
        query = normalised(encoder.embed_texts([job.keywords])[0])
        if not encoder.reads_whole(job.keywords):
            notice(_CUT.format("images"))
        searches = [QueryRequest(query=query.tolist(), using=schema.MIXED, limit=depth)]
        shares = [LIKENESS]
        if vector.any():
            searches += self._word_searches(vector, job.keywords, depth)
            shares += [(1 - LIKENESS) * share for share in self._word_shares]
        found = self._search(job, searches, _wanted(job, image=True), schema.IMAGE)
        return different(
            self._fused(job, found, shares), _image, self._profile.alike, job.references
        )

    def _word_searches(self, vector: Vectors, keywords: str, depth: int) -> list[QueryRequest]:
        dense = QueryRequest(
            query=vector.tolist(),
            using=schema.DENSE,
            limit=depth,
            score_threshold=self._profile.floor or None,
        )
        return [dense, QueryRequest(query=query_vector(keywords), using=schema.SPARSE, limit=depth)]

    @property
    def _word_shares(self) -> tuple[float, float]:
        return self._profile.dense, 1 - self._profile.dense

    def _search(
        self,
        job: Job,
        searches: Sequence[QueryRequest],
        wanted: Filter | None,
        vector: str | None = None,
    ) -> list[list[ScoredPoint]]:
        """What each search finds, in one request, with the named vector of each point."""
        asked = {
            "filter": wanted,
            "with_payload": True,
            "with_vector": [vector] if vector else None,
        }
        try:
            with calling(self._client):
                answers = self._client.query_batch_points(
                    job.collection, [each.model_copy(update=asked) for each in searches]
                )
        except (UnexpectedResponse, ValueError) as error:
            raise JobError(f"Collection {job.collection!r} cannot be searched: {error}") from error
        return [answer.points for answer in answers]

    def _fused(
        self, job: Job, found: Sequence[Sequence[ScoredPoint]], shares: Sequence[float]
    ) -> list[ScoredPoint]:
        """What the searches found, as one; checked, for the name may stand for a new version."""
        ranked = fused(found, shares)
        if any(_embedding(point) != self._embedders.texts.name for point in ranked):
            self._check(job.collection)
        return ranked

    def _worded_apart(self, ranked: Iterable[Passage], count: int) -> tuple[Passage, ...]:
        def wording(passage: Passage) -> Vectors:
            (vector,) = self._wording.embed([schema.indexed(passage)])
            return np.asarray(vector)

        return tuple(different(ranked, wording, self._profile.alike, count))

    def _check(self, collection: str) -> None:
        """Raises JobError for a collection that this retriever cannot use."""
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


def _dense(point: ScoredPoint) -> Vectors:
    return schema.vector_of(point, schema.DENSE)


def _embedding(point: ScoredPoint) -> object:
    return (point.payload or {}).get("embedding")


def _image(point: ScoredPoint) -> Vectors:
    return schema.vector_of(point, schema.IMAGE)


def _wanted(job: Job, *, image: bool = False, prefix: str = "") -> Filter | None:
    """What a source has to have: every tag, one of the licences, an image."""
    must, tags = list[Condition](), f"{prefix}tags"
    must += [FieldCondition(key=tags, match=MatchValue(value=tag)) for tag in job.tags]
    if job.licenses:
        must.append(FieldCondition(key=f"{prefix}license", match=MatchAny(any=list(job.licenses))))
    absent = [IsEmptyCondition(is_empty=PayloadField(key="image"))] if image else []
    return Filter(must=must, must_not=absent) if must or absent else None
