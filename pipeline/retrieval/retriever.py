"""Finds passages and images by hybrid search: words and vectors at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
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
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedder, Embedders, Vectors, normalised
from pipeline.retrieval.external import ExternalCollection, open_external
from pipeline.retrieval.lexical import HashedEmbedder, evenly, query_vector
from pipeline.retrieval.ranking import different, fused
from pipeline.telemetry import notice

DEPTH = 4
"""Candidates of each search, as a multiple of the requested number of sources."""
LIKENESS = 1 / 3
"""Weight of image similarity when ranking images; the rest is text search. Below 0.5, so that an
exact match of a name beats an image that is merely similar.
"""

_CUT = "the encoder that finds {} read the beginning of the keywords alone"


class QdrantRetriever:
    """A Retriever: fuses dense vectors and BM25, and for images their similarity to the keywords.

    The query is a job's keywords. Scores are from 0 to 1 and cannot be compared across jobs
    (`ranking.fused`). The floor applies to the dense similarity of keywords and passage, whichever
    search found it. Of passages with nearly equal wording, and of images that look nearly equal,
    the best is kept; wording is compared by hashing, because for a text encoder two facts that
    differ in one word are nearly equal.
    """

    def __init__(
        self,
        client: Callable[[], QdrantClient],
        embedders: Embedders,
        profile: RetrievalProfile,
        external: Mapping[str, Embedder] = MappingProxyType({}),
    ) -> None:
        self._open, self._embedders, self._profile = client, embedders, profile
        own = {"": embedders.texts, profile.embedding: embedders.texts}
        self._by_reference = own | dict(external)
        self._wording = HashedEmbedder(evenly)
        self._usable = set[str]()
        self._external = dict[str, ExternalCollection]()

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
        norm = self._profile.image_norm
        return Context(
            passages=self._passages(job, vector) if job.passages and vector.any() else (),
            references=tuple(schema.reference(p, job.reference_scale, norm) for p in images),
        )

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
        search = external.search(vector, DEPTH * job.passages, self._profile.floor)
        wanted = _filter(job, prefix=external.layout.prefix)
        (found,) = self._search(job, [search], wanted)
        return self._distinct(filter(None, map(external.passage, found)), job.passages)

    def _passages(self, job: Job, vector: Vectors) -> tuple[Passage, ...]:
        floor = self._profile.floor
        searches = self._word_searches(vector, job.keywords, DEPTH * job.passages)
        found = self._search(job, searches, _filter(job), schema.DENSE if floor else None)
        near = [
            point
            for point in self._fused(job, found, self._word_shares)
            if not floor or schema.vector_of(point, schema.DENSE) @ vector >= floor
        ]
        return self._distinct(map(schema.passage, near), job.passages)

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
        found = self._search(job, searches, _filter(job, image=True), schema.IMAGE)
        ranked = self._fused(job, found, shares)
        direction = partial(schema.vector_of, name=schema.IMAGE)
        return different(ranked, direction, self._profile.alike, job.references)

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
        """The results of each search, sent in one request; each point with the named vector."""
        options = {
            "filter": wanted,
            "with_payload": True,
            "with_vector": [vector] if vector else None,
        }
        try:
            with calling(self._client):
                answers = self._client.query_batch_points(
                    job.collection, [each.model_copy(update=options) for each in searches]
                )
        except (UnexpectedResponse, ValueError) as error:
            raise JobError(f"Collection {job.collection!r} cannot be searched: {error}") from error
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
