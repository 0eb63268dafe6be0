"""Finds passages by words and by likeness at once."""

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import Fusion, FusionQuery, Prefetch, ScoredPoint

from pipeline.errors import JobError
from pipeline.job import Context, Job
from pipeline.knowledge import schema
from pipeline.knowledge.client import calling, collections
from pipeline.knowledge.embedding import Embedder, Vectors
from pipeline.knowledge.sparse import query_vector
from pipeline.settings import RetrievalProfile

DEPTH = 4
"""Each of the two searches looks this many times deeper than the passages asked for."""


class QdrantRetriever:
    """A Retriever: BM25 and dense vectors side by side, fused by reciprocal rank.

    A job asks with its keywords alone. A passage's score is the sum of 1 / (2 + its place) over
    the two searches that found it, places counted from 0; so it is at most 1, and says
    nothing across jobs. Cormack et al., "Reciprocal Rank Fusion outperforms Condorcet" (2009).
    The floor is for the dense likeness of keywords and passage, and holds for both searches.
    """

    def __init__(self, client: QdrantClient, embedder: Embedder, profile: RetrievalProfile) -> None:
        self._client, self._embedder, self._floor = client, embedder, profile.floor
        self._usable = set[str]()

    def retrieve(self, job: Job) -> Context:
        """At most `job.k` passages of `job.collection`, best first, none below the floor.

        Raises JobError for a collection that is not there or was made with another embedding,
        Unavailable when the knowledge base does not answer.
        """
        if not job.k or not job.collection:
            return Context()
        if job.collection not in self._usable:
            self._check(job.collection)
        vector = self._embedder.embed([job.keywords])[0]
        if not vector.any():
            return Context()
        found = self._search(job, vector)
        near = [p for p in found if self._floor <= 0 or self._likeness(p, vector) >= self._floor]
        passages = (schema.passage(p.id, p.payload or {}, p.score) for p in near[: job.k])
        return Context(passages=tuple(passages))

    def _search(self, job: Job, vector: Vectors) -> list[ScoredPoint]:
        depth = DEPTH * job.k
        dense = Prefetch(
            query=vector.tolist(), using=schema.DENSE, limit=depth, score_threshold=self._floor
        )
        sparse = Prefetch(query=query_vector(job.keywords), using=schema.SPARSE, limit=depth)
        try:
            with calling(self._client):
                answer = self._client.query_points(
                    job.collection,
                    prefetch=[dense, sparse],
                    query=FusionQuery(fusion=Fusion.RRF),
                    limit=2 * depth if self._floor else job.k,
                    with_vectors=[schema.DENSE] if self._floor else False,
                )
        except (UnexpectedResponse, ValueError) as error:
            raise JobError(f"Collection {job.collection!r} cannot be searched: {error}") from error
        return answer.points

    def _likeness(self, point: ScoredPoint, vector: Vectors) -> float:
        stored = point.vector[schema.DENSE] if isinstance(point.vector, dict) else None
        return float(np.dot(vector, np.asarray(stored, dtype=np.float32))) if stored else 0.0

    def _check(self, collection: str) -> None:
        """Raises JobError for a collection that this retriever cannot use."""
        names = collections(self._client)
        if collection not in names:
            raise JobError(
                f"There is no collection {collection!r}; there are: {', '.join(names) or 'none'}. "
                f"Make it with `pressrun ingest PATH --collection {collection}`."
            )
        with calling(self._client):
            known = schema.embedding_of(self._client, collection)
        if known and known != self._embedder.name:
            raise JobError(
                f"Collection {collection!r} was embedded with {known}, but the profile asks for "
                f"{self._embedder.name}; ingest it again into another collection."
            )
        if known:
            self._usable.add(collection)
