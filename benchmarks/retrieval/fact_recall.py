"""The share of questions whose brand's fact is among the first three passages.

The knowledge base is a crowded one: see `benchmarks.retrieval.brands`. `hybrid` is the retriever as
the profile has it; `dense` and `bm25` are one of its searches alone, as deep. Each brand is asked
for in each form, one of which spells its name wrong.

In a second knowledge base every fact stands three times, with tiny changes. `duplicates_kept` is
the share of those additional copies that come back among four passages; `…_unthinned` are the
figures with `retrieval.alike` at 1, which takes every copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from qdrant_client.models import ScoredPoint
from rich.console import Console
from rich.progress import track

from benchmarks.retrieval.brands import FORMS, Book, Brand, book, copies
from benchmarks.retrieval.chain import Chain, fill, write_rows
from examples.shapes.training.writer.passages import plain_taste
from pipeline.job import Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.profile import QdrantProfile
from pipeline.retrieval import schema
from pipeline.retrieval.client import calling
from pipeline.retrieval.ingest import Library
from pipeline.retrieval.lexical import query_vector
from pipeline.retrieval.retriever import DEPTH, QdrantRetriever

CROWDED, PLANTED = "crowded", "planted"
FIRST, PASSAGES = 3, 4

Search = Callable[[Job], Sequence[str]]
"""Answers the sources that it finds, best first."""


@dataclass(frozen=True)
class Question:
    """A job that asks for a brand, and how its name is put."""

    job: Job
    brand: Brand
    form: str


class FactRecall:
    """Both knowledge bases, filled, and what is asked of them."""

    def __init__(self, chain: Chain, facts: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._builder = JobBuilder(chain.profile, Overrides())
        assert isinstance(chain.profile.retrieval, QdrantProfile)
        self._profile = chain.profile.retrieval
        self._library = chain.library()
        crowded, planted = (
            book(rng, count, plain_taste(), crowded=True) for count in (facts, max(facts // 5, 5))
        )
        self._fill(chain, CROWDED, crowded.rows)
        self._fill(chain, PLANTED, [*planted.rows, *_copied(planted, rng)])
        self._questions = self._ask(crowded, CROWDED, FIRST, list(FORMS), rng)
        self._planted = self._ask(planted, PLANTED, PASSAGES, ["plain"], rng)

    def measure(self) -> dict[str, Any]:
        """Recall of each search, altogether and by form, and what becomes of copies."""
        searches: dict[str, Search] = {
            "hybrid": partial(_hybrid, QdrantRetriever(*self._parts, self._profile)),
            "dense": partial(_dense, self._library),
            "bm25": partial(_bm25, self._library),
        }
        hits = {name: self._hits(name, search) for name, search in searches.items()}
        forms = {form: [q.form == form for q in self._questions] for form in FORMS}
        by_form = {
            form: {name: float(np.mean(np.array(hit)[asked])) for name, hit in hits.items()}
            for form, asked in forms.items()
        }
        thinned, kept = self._copies(self._profile)
        unthinned, all_kept = self._copies(self._profile.model_copy(update={"alike": 1.0}))
        self._library.client.close()
        return {
            **{f"recall_at_3_{name}": fmean(hit) for name, hit in hits.items()},
            "recall_at_3_thinned": thinned,
            "recall_at_3_unthinned": unthinned,
            "duplicates_kept": kept,
            "duplicates_kept_unthinned": all_kept,
            "by_form": by_form,
        }

    @property
    def _parts(self) -> tuple[Any, Any]:
        return lambda: self._library.client, self._library.embedders

    def _fill(self, chain: Chain, name: str, rows: Sequence[dict[str, Any]]) -> None:
        fill(self._library, name, write_rows(chain.sources / f"{name}.jsonl", rows), len(rows))

    def _ask(
        self, whole: Book, collection: str, k: int, forms: list[str], rng: np.random.Generator
    ) -> list[Question]:
        found = []
        for brand in whole.brands:
            for form in forms:
                keywords = FORMS[form](brand.name, rng)
                row = RawRow(1, {"keywords": keywords, "collection": collection, "passages": k})
                job = self._builder.build(row)
                assert isinstance(job, Job)
                found.append(Question(job, brand, form))
        return found

    def _hits(self, name: str, search: Search) -> list[bool]:
        asked = track(self._questions, name, console=Console(stderr=True))
        return [question.brand.source in search(question.job)[:FIRST] for question in asked]

    def _copies(self, profile: QdrantProfile) -> tuple[float, float]:
        """Recall of a fact in any of its copies, and the share of additional ones that came."""
        search = partial(_hybrid, QdrantRetriever(*self._parts, profile))
        hits, more = list[bool](), list[float]()
        for question in track(self._planted, "copies", console=Console(stderr=True)):
            own = [_original(each) == question.brand.source for each in search(question.job)]
            hits.append(any(own[:FIRST]))
            more.append(max(sum(own) - 1, 0) / 2)
        return fmean(hits), fmean(more)


def _copied(whole: Book, rng: np.random.Generator) -> list[dict[str, Any]]:
    facts = {brand.source for brand in whole.brands}
    return [copy for row in whole.rows if row["source"] in facts for copy in copies(row, rng)]


def _original(source: str) -> str:
    return source.partition("#")[0]


def _hybrid(retriever: QdrantRetriever, job: Job) -> list[str]:
    return [passage.source for passage in retriever.retrieve(job).passages]


def _dense(library: Library, job: Job) -> list[str]:
    vector = library.embedders.texts.embed([job.keywords])[0]
    return _alone(library, job, vector.tolist(), schema.DENSE)


def _bm25(library: Library, job: Job) -> list[str]:
    return _alone(library, job, query_vector(job.keywords), schema.SPARSE)


def _alone(library: Library, job: Job, query: Any, using: str) -> list[str]:
    with calling(library.client):
        found = library.client.query_points(
            job.collection, query=query, using=using, limit=DEPTH * job.passages
        )
    return [_source(point) for point in found.points]


def _source(point: ScoredPoint) -> str:
    return str((point.payload or {})["source"])
