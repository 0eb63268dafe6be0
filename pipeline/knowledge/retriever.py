"""Finds texts and pictures, by words and by likeness at once."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import (
    Condition,
    FieldCondition,
    Filter,
    Fusion,
    FusionQuery,
    IsEmptyCondition,
    MatchAny,
    MatchValue,
    PayloadField,
    Prefetch,
    ScoredPoint,
)

from pipeline.errors import JobError
from pipeline.job import Context, Job, Passage
from pipeline.knowledge import schema
from pipeline.knowledge.client import calling, collections
from pipeline.knowledge.embedding import Embedder, Embedders, Vectors, normalised
from pipeline.knowledge.foreign import Foreign, open_foreign
from pipeline.knowledge.sparse import query_vector
from pipeline.settings import CollectionProfile, RetrievalProfile

DEPTH = 4
"""Each search looks this many times deeper than the sources asked for."""
ROUNDING = 1e-5
"""Of a cosine: at `alike` 1 nothing is taken for the same, not even copies."""


class QdrantRetriever:
    """A Retriever: BM25 and dense vectors side by side, fused by reciprocal rank; for pictures
    their likeness to the keywords as well.

    A job asks with its keywords alone. A source's score is the sum of 1 / (2 + its place) over
    the searches that found it, places counted from 0; it says nothing across jobs. Cormack et al.,
    "Reciprocal Rank Fusion outperforms Condorcet" (2009). The floor is for the dense likeness of
    keywords and passage, whichever search found it. Of sources that are nearly the same the best
    is taken: as in Yasunaga et al., "Retrieval-Augmented Multimodal Language Modeling" (2022), 3.1.
    """

    def __init__(
        self,
        client: QdrantClient,
        embedders: Embedders,
        profile: RetrievalProfile,
        others: Mapping[str, Embedder] = MappingProxyType({}),
    ) -> None:
        self._client, self._embedders, self._profile = client, embedders, profile
        self._others = {"": embedders.texts, profile.embedding: embedders.texts} | dict(others)
        self._usable = set[str]()
        self._foreign = dict[str, Foreign]()

    def retrieve(self, job: Job) -> Context:
        """At most `job.k` passages and `job.images` pictures of `job.collection`, best first.

        Raises JobError for a collection that is not there, was made with another embedding or
        otherwise than the profile says, or holds no pictures where some are asked for; Unavailable
        when the knowledge base does not answer.
        """
        if not job.collection or not (job.k or job.images):
            return Context()
        if written := self._profile.collections.get(job.collection):
            return Context(passages=self._theirs(job, written))
        if job.collection not in self._usable:
            self._check(job.collection)
        vector = self._embedders.texts.embed([job.keywords])[0]
        texts = self._texts(job, vector) if job.k and vector.any() else []
        pictures = self._pictures(job, vector) if job.images else []
        norm = self._profile.image_norm
        return Context(
            passages=tuple(map(schema.passage, texts)),
            references=tuple(schema.reference(p, job.strength, norm) for p in pictures),
        )

    def _theirs(self, job: Job, written: CollectionProfile) -> tuple[Passage, ...]:
        """Of a collection that another tool wrote, by its dense vector alone."""
        if job.images:
            raise JobError(
                f"Collection {job.collection!r} was written by {written.written_by} and holds no "
                "pictures; ask it with images = 0."
            )
        theirs = self._opened(job.collection, written)
        vector = theirs.embedder.embed([job.keywords])[0]
        if not vector.any():
            return ()
        search = theirs.search(vector, DEPTH * job.k, self._profile.floor)
        wanted = _wanted(job, prefix=theirs.layout.prefix)
        found = self._search(job, [search], wanted, theirs.vector)
        passages = {point.id: theirs.passage(point) for point in found}
        readable = [point for point in found if passages[point.id]]
        best = self._different(readable, theirs.vector, job.k)
        return tuple(filter(None, (passages[point.id] for point in best)))

    def _opened(self, collection: str, written: CollectionProfile) -> Foreign:
        if collection not in self._foreign:
            embedder = self._others[written.embedding]
            self._foreign[collection] = open_foreign(self._client, collection, written, embedder)
        return self._foreign[collection]

    def _texts(self, job: Job, vector: Vectors) -> list[ScoredPoint]:
        floor = self._profile.floor
        searches = self._word_searches(job, vector, DEPTH * job.k)
        found = self._search(job, searches, _wanted(job), schema.DENSE)
        near = [p for p in found if not floor or _dense(p) @ vector >= floor]
        return self._different(near, schema.DENSE, job.k)

    def _pictures(self, job: Job, vector: Vectors) -> list[ScoredPoint]:
        encoder = self._embedders.pictures
        if encoder is None:
            raise JobError("pictures are asked for, and the profile has no retrieval.images")
        depth = DEPTH * job.images
        query = normalised(encoder.embed_texts([job.keywords])[0])
        alike = Prefetch(query=query.tolist(), using=schema.MIXED, limit=depth)
        words = self._word_searches(job, vector, depth) if vector.any() else []
        found = self._search(job, [*words, alike], _wanted(job, picture=True), schema.IMAGE)
        return self._different(found, schema.IMAGE, job.images)

    def _word_searches(self, job: Job, vector: Vectors, depth: int) -> list[Prefetch]:
        floor = self._profile.floor or None
        return [
            Prefetch(query=vector.tolist(), using=schema.DENSE, limit=depth, score_threshold=floor),
            Prefetch(query=query_vector(job.keywords), using=schema.SPARSE, limit=depth),
        ]

    def _search(
        self, job: Job, searches: Sequence[Prefetch], wanted: Filter | None, vector: str
    ) -> list[ScoredPoint]:
        """All that the searches find, fused, with the named vector of each."""
        try:
            with calling(self._client):
                answer = self._client.query_points(
                    job.collection,
                    prefetch=[each.model_copy(update={"filter": wanted}) for each in searches],
                    query=FusionQuery(fusion=Fusion.RRF),
                    limit=sum(each.limit or 0 for each in searches),
                    with_vectors=[vector],
                )
        except (UnexpectedResponse, ValueError) as error:
            raise JobError(f"Collection {job.collection!r} cannot be searched: {error}") from error
        return answer.points

    def _different(self, found: list[ScoredPoint], vector: str, count: int) -> list[ScoredPoint]:
        """The best, without those that are nearly the same as a better one."""
        kept, directions = list[ScoredPoint](), list[Vectors]()
        for point in found:
            if len(kept) == count:
                break
            direction = normalised(schema.vector_of(point, vector))
            if all(direction @ other <= self._profile.alike + ROUNDING for other in directions):
                kept.append(point)
                directions.append(direction)
        return kept

    def _check(self, collection: str) -> None:
        """Raises JobError for a collection that this retriever cannot use."""
        names = collections(self._client)
        if collection not in names:
            raise JobError(
                f"There is no collection {collection!r}; there are: {', '.join(names) or 'none'}. "
                f"Make it with `pressrun ingest PATH --collection {collection}`."
            )
        with calling(self._client):
            problem = schema.mismatch(self._client, collection, self._embedders)
            filled = bool(self._client.count(collection, exact=False).count)
        if problem:
            raise JobError(f"Collection {collection!r} {problem}; ingest it into another one.")
        if filled:
            self._usable.add(collection)


def _dense(point: ScoredPoint) -> Vectors:
    return schema.vector_of(point, schema.DENSE)


def _wanted(job: Job, *, picture: bool = False, prefix: str = "") -> Filter | None:
    """What a source has to have: every tag, one of the licences, a picture."""
    must, tags = list[Condition](), f"{prefix}tags"
    must += [FieldCondition(key=tags, match=MatchValue(value=tag)) for tag in job.tags]
    if job.licenses:
        must.append(FieldCondition(key=f"{prefix}license", match=MatchAny(any=list(job.licenses))))
    absent = [IsEmptyCondition(is_empty=PayloadField(key="picture"))] if picture else []
    return Filter(must=must, must_not=absent) if must or absent else None
