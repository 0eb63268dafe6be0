"""Collections of other tools: what is mapped, what is refused, and what comes broken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from qdrant_client.models import (
    Distance,
    MultiVectorComparator,
    MultiVectorConfig,
    PointStruct,
    ScoredPoint,
    VectorParams,
)

from pipeline.assemble.knowledge import open_external_embedders
from pipeline.errors import JobError, KnowledgeError
from pipeline.job import Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.models import Models
from pipeline.profile import CollectionProfile, Profile, QdrantProfile
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.external import LAYOUTS, NODE, ExternalCollection
from pipeline.retrieval.ingest import ingest
from pipeline.retrieval.lexical import HashedEmbedder, evenly
from pipeline.retrieval.retriever import QdrantRetriever
from pipeline.retrieval.schema import DENSE, create
from pipeline.retrieval.sources.chunks import LONGEST
from pipeline.retrieval.sources.texts import LABEL, TAGS
from tests.harness.external_collections import DOCUMENTS, TOOLS, fill
from tests.harness.libraries import library

NAME = "theirs"
LOGO = DOCUMENTS[0]
HASHED = HashedEmbedder(evenly)
"""What `tests/data/collections/write.py` embedded with."""


class Short:
    """An embedder of another size."""

    name, size = "short", 8

    def embed(self, texts: Any) -> Any:
        return np.ones((len(texts), self.size), dtype=np.float32) / self.size**0.5

    def reads_whole(self, _: str) -> bool:
        return True


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def retriever(client: QdrantClient, tool: str, **settings: Any) -> QdrantRetriever:
    written = {key: settings.pop(key) for key in ("embedding", "vector") if key in settings}
    others = settings.pop("others", {})
    named = {NAME: CollectionProfile(written_by=tool, **written)}
    profile = QdrantProfile(collections=named, **settings)
    return QdrantRetriever(lambda: client, Embedders(HASHED), profile, others)


def asked(keywords: str = "Viora logo", passages: int = 5, **columns: Any) -> Job:
    values = {"keywords": keywords, "collection": NAME, "passages": passages, **columns}
    made = JobBuilder(Profile.load("shapes"), Overrides()).build(RawRow(1, values))
    assert isinstance(made, Job)
    return made


def put(client: QdrantClient, payload: dict[str, Any], text: str = "Viora logo") -> None:
    """One more point, whose vector is that of a text."""
    vector = HASHED.embed([text])[0].tolist()
    client.upsert(NAME, [PointStruct(id=7, vector=vector, payload=payload)])


def payload_of(tool: str, text: object, metadata: object) -> dict[str, Any]:
    """As the tool lays it out."""
    match tool:
        case "langchain":
            return {"page_content": text, "metadata": metadata}
        case "haystack":
            return {"content": text, "meta": metadata}
    top = metadata if isinstance(metadata, dict) else {"extra_info": metadata}
    return top | {"_node_content": json.dumps({"text": text})}


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_a_text_with_its_metadata(client, tool, kind) -> None:
    fill(client, NAME, tool, kind)
    best = retriever(client, tool).retrieve(asked()).passages[0]
    wanted = {**LOGO, "tags": tuple(LOGO["tags"]), "relevance": None}
    assert best.model_dump(exclude={"id", "score"}) == wanted
    assert client.retrieve(NAME, [best.id])
    assert 0.5 < best.score <= 1


def test_the_tools_sparse_vector_is_left_alone(client, tool) -> None:
    fill(client, NAME, tool, "hybrid")
    strict = retriever(client, tool, floor=0.5)
    assert strict.retrieve(asked()).passages[0].text == LOGO["text"]
    assert not strict.retrieve(asked("height of the Eiffel tower in Paris")).passages


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ({"tags": ("logo",)}, {0, 2}),
        ({"tags": ("logo", "fact"), "licenses": ("CC0-1.0",)}, {0}),
        ({"licenses": ("proprietary", "CC-BY-4.0")}, {1, 2, 3}),
        ({"tags": ("mascot",)}, set()),
    ],
)
def test_what_a_job_wants_of_a_source(client, tool, wanted, places) -> None:
    fill(client, NAME, tool)
    job = asked().model_copy(update=wanted)
    found = retriever(client, tool).retrieve(job).passages
    assert {passage.text for passage in found} == {DOCUMENTS[place]["text"] for place in places}


@pytest.mark.parametrize("distance", [Distance.COSINE, Distance.DOT, Distance.EUCLID])
def test_the_floor_is_the_same_for_every_distance(client, tool, distance) -> None:
    fill(client, NAME, tool, distance=distance)
    found = retriever(client, tool, floor=0.5).retrieve(asked()).passages
    assert found[0].text == LOGO["text"]
    assert all("Viora" in passage.text for passage in found)
    assert len(retriever(client, tool).retrieve(asked()).passages) == 5


def test_what_is_nearly_the_same_is_taken_once(client, tool) -> None:
    fill(client, NAME, tool)
    again = f"{LOGO['text']} As before."
    put(client, payload_of(tool, again, {"title": LOGO["title"]}), LOGO["text"])
    texts = [p.text for p in retriever(client, tool).retrieve(asked()).passages]
    assert len({LOGO["text"], again} & set(texts)) == 1
    texts = [p.text for p in retriever(client, tool, alike=1.0).retrieve(asked()).passages]
    assert {LOGO["text"], again} <= set(texts)


@pytest.mark.parametrize("text", [None, "", " \n", 3, ["a"], {"a": 1}, "https://evil.example/x"])
def test_a_point_without_a_text_is_passed_over(client, tool, text) -> None:
    fill(client, NAME, tool)
    put(client, payload_of(tool, text, {}))
    found = retriever(client, tool).retrieve(asked(passages=1)).passages
    assert [passage.text for passage in found] == [LOGO["text"]]


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "cut off',
        "[" * 100_000,
        '"text"',
        "[1]",
        7,
        json.dumps({"text_resource": "text"}),
        json.dumps({"text": "long" * NODE}),
    ],
)
def test_a_node_that_cannot_be_read_is_left_out_or_read_from_its_text(client, content) -> None:
    fill(client, NAME, "llamaindex")
    put(client, {"_node_content": content})
    found = retriever(client, "llamaindex").retrieve(asked(passages=1)).passages
    assert [passage.text for passage in found] == [LOGO["text"]]
    put(client, {"_node_content": content, "text": "Beside it."})
    assert (
        retriever(client, "llamaindex").retrieve(asked(passages=1)).passages[0].text == "Beside it."
    )


def test_a_node_of_resources(client) -> None:
    fill(client, NAME, "llamaindex")
    put(client, {"_node_content": json.dumps({"text_resource": {"text": "A resource."}})})
    assert (
        retriever(client, "llamaindex").retrieve(asked(passages=1)).passages[0].text
        == "A resource."
    )


@pytest.mark.parametrize("metadata", [None, 3, "a", [1], {"title": 3, "tags": {"a": 1}}])
def test_metadata_of_another_kind_says_nothing(client, tool, metadata) -> None:
    fill(client, NAME, tool)
    put(client, payload_of(tool, "A text.", metadata))
    best = retriever(client, tool).retrieve(asked(passages=1)).passages[0]
    assert (best.text, best.title, best.source, best.tags) == ("A text.", "", "", ())


@pytest.mark.parametrize(
    ("metadata", "title", "source"),
    [
        ({"title": "Book", "source": "b.pdf", "file_name": "c.pdf"}, "Book", "b.pdf"),
        ({"file_path": "/a/b.pdf", "file_name": "c.pdf"}, "c.pdf", "/a/b.pdf"),
        ({"file_path": "/a/b.pdf", "source": "the archive"}, "b.pdf", "the archive"),
        ({"file_path": "C:\\a\\b.pdf"}, "b.pdf", "C:\\a\\b.pdf"),
        ({"url": "https://a.example/b"}, "", "https://a.example/b"),
        ({"title": "", "file_name": "c.pdf"}, "c.pdf", "c.pdf"),
    ],
)
def test_where_title_and_source_come_from(client, tool, metadata, title, source) -> None:
    fill(client, NAME, tool)
    put(client, payload_of(tool, "A text.", metadata))
    best = retriever(client, tool).retrieve(asked(passages=1)).passages[0]
    assert (best.title, best.source) == (title, source)


def test_texts_are_cleaned_and_cut_as_ingested_ones(client, tool) -> None:
    fill(client, NAME, tool)
    words = "word " * 1_000
    label = "l" * 2 * LABEL
    metadata = {"title": f"a\u202e {label}", "license": label, "tags": ["t\n", 3, *["u"] * 99]}
    text = f"Title\n\nSee  https://evil.example/x?y=1 \u202enow \ud800.\n\n{words * 50}"
    put(client, payload_of(tool, text, metadata))
    best = retriever(client, tool).retrieve(asked(passages=1)).passages[0]
    assert best.text.startswith("Title\n\nSee now \ufffd.\n\nword word")
    assert best.text.endswith(" word")
    assert LONGEST - 10 < len(best.text) <= LONGEST
    assert best.title.startswith("a lll")
    assert len(best.title) <= len(best.license) == LABEL
    assert best.tags == ("t", *["u"] * (TAGS - 2))


def test_a_text_without_spaces_is_cut_where_it_must(client, tool) -> None:
    fill(client, NAME, tool)
    put(client, payload_of(tool, "標題\n\n" + "字" * 5_000, {}))
    best = retriever(client, tool).retrieve(asked(passages=1)).passages[0]
    assert len(best.text) == LONGEST


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
LABELS = st.dictionaries(
    st.sampled_from(["title", "source", "tags", "license", "file_path", "file_name", "url"]), JSON
)


@given(text=JSON, metadata=JSON | LABELS)
@pytest.mark.parametrize("name", TOOLS)
def test_no_payload_is_too_strange(name: str, text: Any, metadata: Any) -> None:
    theirs = ExternalCollection(LAYOUTS[name], HASHED, "")
    point = ScoredPoint(id=1, version=0, score=0.5, payload=payload_of(name, text, metadata))
    passage = theirs.passage(point)
    assert passage is None or passage.text


def test_asking_a_foreign_collection_for_images_is_an_error(client, tool) -> None:
    fill(client, NAME, tool)
    with pytest.raises(JobError, match=f"was written by {tool} and holds no images"):
        retriever(client, tool).retrieve(asked(references=1, reference_scale=0))


def test_a_collection_that_is_not_there(client, tool) -> None:
    with pytest.raises(JobError, match=f"no collection 'theirs', which the profile says {tool}"):
        retriever(client, tool).retrieve(asked())


@pytest.mark.parametrize(("kind", "there"), [("dense", r"\(unnamed\)"), ("hybrid", "text-dense")])
def test_a_vector_that_is_not_there(client, kind, there) -> None:
    fill(client, NAME, "haystack", kind)
    with pytest.raises(JobError, match=f"no dense vector mine; there are: {there}.*theirs.vector"):
        retriever(client, "haystack", vector="mine").retrieve(asked())


def test_a_vector_of_a_name_of_its_own(client, tool) -> None:
    client.create_collection(NAME, {"mine": VectorParams(size=512, distance=Distance.DOT)})
    vector = {"mine": HASHED.embed(["A text."])[0].tolist()}
    point = PointStruct(id=1, vector=vector, payload=payload_of(tool, "A text.", {}))
    client.upsert(NAME, [point])
    found = retriever(client, tool, vector="mine").retrieve(asked("text")).passages
    assert [(passage.id, passage.text) for passage in found] == [("1", "A text.")]


def test_a_foreign_collection_of_another_embedding_is_an_error(client, tool) -> None:
    unnamed = VectorParams(size=8, distance=Distance.COSINE)
    client.create_collection(NAME, unnamed)
    point = PointStruct(id=1, vector=[1.0] * 8, payload=payload_of(tool, "A text.", {}))
    client.upsert(NAME, [point])
    complaint = "vectors of 8 components, and hashed-evenly-512 gives 512.*theirs.embedding"
    with pytest.raises(JobError, match=complaint):
        retriever(client, tool).retrieve(asked())
    other = retriever(client, tool, embedding="short", others={"short": Short()})
    assert [passage.text for passage in other.retrieve(asked()).passages] == ["A text."]


def test_several_vectors_for_each_text(client, tool) -> None:
    several = MultiVectorConfig(comparator=MultiVectorComparator.MAX_SIM)
    params = VectorParams(size=512, distance=Distance.COSINE, multivector_config=several)
    client.create_collection(NAME, params)
    with pytest.raises(JobError, match="several vectors for each text"):
        retriever(client, tool).retrieve(asked())


def test_each_other_embedding_is_opened_once() -> None:
    named = {
        "a": CollectionProfile(written_by="haystack"),
        "b": CollectionProfile(written_by="haystack", embedding="hashed"),
        "c": CollectionProfile(written_by="langchain", embedding="hashed"),
        "d": CollectionProfile(written_by="langchain", embedding="own"),
    }
    profile = QdrantProfile(embedding="own", collections=named)
    others = open_external_embedders(profile, Models(Path()))
    assert {reference: each.name for reference, each in others.items()} == {
        "hashed": HashedEmbedder().name
    }


@pytest.mark.parametrize("embedding", [["mine"], {"name": "mine"}, 7])
def test_an_embedding_that_is_no_name_is_refused(client, embedding) -> None:
    create(client, NAME, Embedders(HASHED))
    own = QdrantRetriever(lambda: client, Embedders(HASHED), QdrantProfile())
    vector = {DENSE: HASHED.embed(["Viora logo"])[0].tolist()}

    def fill_with(embedding: object) -> None:
        payload = {"text": "Viora logo", "embedding": embedding}
        client.upsert(NAME, [PointStruct(id=7, vector=vector, payload=payload)])

    fill_with(HASHED.name)
    assert own.retrieve(asked()).passages
    fill_with(embedding)
    with pytest.raises(JobError, match="was embedded with"):
        own.retrieve(asked())


def test_what_no_profile_names_is_refused(client, tool, tmp_path: Path) -> None:
    fill(client, NAME, tool)
    unaware = QdrantRetriever(lambda: client, Embedders(HASHED), QdrantProfile())
    with pytest.raises(JobError, match=r"another tool.*retrieval\.collections"):
        unaware.retrieve(asked())
    texts = tmp_path / "facts.jsonl"
    texts.write_text('{"text": "a"}')
    with pytest.raises(KnowledgeError, match="was written by another tool"):
        ingest(library(client, tmp_path), texts, NAME)
