"""How well the example's brand facts are found."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.profile import Profile
from pipeline.retrieval.ingest import ingest
from pipeline.retrieval.retriever import QdrantRetriever
from pipeline.telemetry import metered
from tests.harness.libraries import library

KNOWLEDGE = Path(__file__).parents[3] / "examples" / "shapes" / "knowledge"
BRANDS = json.loads((KNOWLEDGE / "truth.json").read_text(encoding="utf-8"))
ASKED: list[Callable[[str], str]] = [
    lambda brand: f"{brand} logo",
    lambda brand: f"THE {brand.upper()} SYMBOL",
    lambda brand: f"a poster icon for {brand.lower()}",
]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory) -> QdrantRetriever:
    brands = library(QdrantClient(":memory:"), tmp_path_factory.mktemp("store"))
    report = ingest(brands, KNOWLEDGE / "brands.jsonl", "brands")
    assert report.added >= 200
    assert not report.bad
    return QdrantRetriever(
        lambda: brands.client, brands.embedders, Profile.load("shapes").retrieval
    )


def test_a_brands_look_is_among_four(retriever: QdrantRetriever) -> None:
    builder = JobBuilder(Profile.load("shapes"), Overrides(collection="brands"))
    found = list[bool]()
    for brand, ask in product(BRANDS, ASKED):
        job = builder.build(RawRow(1, {"keywords": ask(brand), "passages": 4}))
        passages = retriever.retrieve(job).passages
        found.append(any(passage.title == f"{brand}: the mark" for passage in passages))
    assert sum(found) / len(found) >= 0.99


@pytest.mark.parametrize(
    "keywords",
    ["large blue star", "icon of a purple diamond", "a dog on the beach", "Zorvane logo"],
)
def test_a_row_about_no_source_gets_none_and_says_so(
    retriever: QdrantRetriever, keywords: str
) -> None:
    builder = JobBuilder(Profile.load("shapes"), Overrides(collection="brands"))
    job = builder.build(RawRow(1, {"keywords": keywords, "passages": 4}))
    with metered() as meter:
        assert retriever.retrieve(job).passages == ()
    (said,) = meter.notices
    assert said.startswith("nothing in collection 'brands' reaches retrieval.floor 0.53: the best")


def test_without_a_floor_passages_are_filled_up(retriever: QdrantRetriever) -> None:
    profile = Profile.load("shapes")
    open_floor = profile.retrieval.model_copy(update={"floor": 0.0})
    all_found = QdrantRetriever(retriever._open, retriever._embedders, open_floor)
    builder = JobBuilder(profile, Overrides(collection="brands"))
    job = builder.build(RawRow(1, {"keywords": "large blue star", "passages": 4}))
    with metered() as meter:
        assert [each.relevance for each in all_found.retrieve(job).passages] == [None] * 4
    assert not meter.notices
