"""What every Retriever promises."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from pipeline.errors import JobError, Unavailable
from pipeline.job import Context, Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.profile import CollectionProfile, Profile, QdrantProfile
from pipeline.retrieval.client import open_client
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.ingest import ingest
from pipeline.retrieval.lexical import HashedEmbedder, evenly
from pipeline.retrieval.retriever import QdrantRetriever
from tests.harness.external_collections import TOOLS, fill
from tests.harness.libraries import library

FACTS = [
    "The Viora logo is a white circle on teal.",
    "Viora was founded in Ghent and bottles mineral water.",
    "Nexo Labs shows a red star on black.",
    "Grünwald Optik grinds lenses in Jena.",
    "Keep a quarter of the height free around every symbol.",
]


@pytest.fixture(scope="module", params=["memory", "folder", "server"])
def client(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[QdrantClient]:
    if request.param == "memory":
        yield QdrantClient(":memory:")
        return
    url = os.environ.get("QDRANT_TEST_URL", "") if request.param == "server" else ""
    if request.param == "server" and not url:
        pytest.skip("QDRANT_TEST_URL names no server")
    with_folder = open_client(url, "", tmp_path_factory.mktemp("knowledge"))
    yield with_folder
    with_folder.close()


@pytest.fixture(scope="module", params=["pressrun", *TOOLS])
def written_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def collection(client: QdrantClient, written_by: str, tmp_path_factory) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    if written_by == "pressrun":
        path = tmp_path_factory.mktemp("texts") / "facts.jsonl"
        path.write_text("\n".join(f'{{"text": "{fact}", "tags": ["fact"]}}' for fact in FACTS))
        assert ingest(library(client, path.parent), path, name).added == len(FACTS)
    else:
        fill(client, name, written_by)
    yield name
    client.delete_collection(name)


@pytest.fixture
def profile(collection: str, written_by: str) -> QdrantProfile:
    # the floor has tests of its own
    if written_by == "pressrun":
        return QdrantProfile(floor=0)
    theirs = CollectionProfile(written_by=written_by)
    return QdrantProfile(floor=0, collections={collection: theirs})


@pytest.fixture
def embedders(written_by: str) -> Embedders:
    # what `tests/data/collections/write.py` embedded with
    return Embedders(HashedEmbedder() if written_by == "pressrun" else HashedEmbedder(evenly))


@pytest.fixture
def retriever(
    client: QdrantClient, embedders: Embedders, profile: QdrantProfile
) -> QdrantRetriever:
    return QdrantRetriever(lambda: client, embedders, profile)


def job(keywords: str, collection: str, passages: int = 3) -> Job:
    row = RawRow(1, {"keywords": keywords, "collection": collection, "passages": passages})
    made = JobBuilder(Profile.load("shapes"), Overrides()).build(row)
    assert isinstance(made, Job)
    return made


def test_the_best_comes_first(retriever, collection) -> None:
    found = retriever.retrieve(job("the Viora logo", collection)).passages
    assert [passage.text for passage in found][:2] == FACTS[:2]
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    assert found[0].source == "facts.jsonl"
    assert found[0].tags[0] == "fact"


@pytest.mark.parametrize("keywords", ["GRUNWALD OPTIK'S sign", "grünwald optik", "Gruenwald lens"])
def test_spelling_makes_little_difference(retriever, collection, keywords) -> None:
    assert retriever.retrieve(job(keywords, collection)).passages[0].text == FACTS[3]


@pytest.mark.parametrize("k", [1, 2, 4, 50])
def test_at_most_k_different_passages_are_found(retriever, collection, k) -> None:
    found = retriever.retrieve(job("Viora logo", collection, k)).passages
    assert len(found) == min(k, len(found)) <= len(FACTS)
    assert found
    assert len({passage.id for passage in found}) == len(found)


@pytest.mark.parametrize(("name", "k"), [("", 3), ("there-is-none", 0)])
def test_a_job_without_a_collection_or_passages_finds_nothing(retriever, name, k) -> None:
    assert retriever.retrieve(job("Viora logo", name, k)) == Context()


def test_keywords_without_a_word_find_nothing(retriever, collection) -> None:
    assert retriever.retrieve(job("★ & of the", collection)) == Context()


def test_none_below_the_floor(client, embedders, collection, profile) -> None:
    strict = QdrantRetriever(lambda: client, embedders, profile.model_copy(update={"floor": 0.5}))
    found = strict.retrieve(job("Viora logo", collection, 5)).passages
    assert found[0].text == FACTS[0]
    assert {passage.text for passage in found} <= set(FACTS[:2])
    # a shared word alone does not lift a passage over the floor
    assert strict.retrieve(job("height of the Eiffel tower in Paris", collection)) == Context()


def test_only_the_keywords_are_asked(retriever, collection) -> None:
    asked = job("Viora logo", collection)
    styled = asked.model_copy(update={"style": "Nexo Labs", "meta": {"a": "Jena"}})
    assert retriever.retrieve(styled) == retriever.retrieve(asked)


def test_a_collection_that_is_not_there(retriever, collection) -> None:
    with pytest.raises(JobError, match=f"{collection}.*pressrun ingest PATH --collection none"):
        retriever.retrieve(job("Viora logo", "none"))


def test_an_error_names_no_collection_that_the_profile_forbids(
    client, embedders, profile, collection
) -> None:
    held = profile.model_copy(update={"allowed": ("none",)})
    with pytest.raises(JobError) as refused:
        QdrantRetriever(lambda: client, embedders, held).retrieve(job("Viora logo", "none"))
    assert collection not in str(refused.value)


def test_a_collection_of_another_embedding_is_an_error(client, collection, written_by) -> None:
    if written_by != "pressrun":
        pytest.skip("other tools note no embedding")

    class Other(HashedEmbedder):
        name = "other"

    with pytest.raises(JobError, match="embedded with hashed-rarity-512, not with other"):
        QdrantRetriever(lambda: client, Embedders(Other()), QdrantProfile()).retrieve(
            job("Viora", collection)
        )


def test_a_new_version_of_another_embedding(client, tmp_path) -> None:
    class Other(HashedEmbedder):
        name = "other"

    path, name = tmp_path / "facts.jsonl", f"test-{uuid.uuid4().hex[:8]}"
    path.write_text(f'{{"text": "{FACTS[0]}"}}')
    ingest(library(client, tmp_path), path, name)
    standing = QdrantRetriever(lambda: client, Embedders(HashedEmbedder()), QdrantProfile())
    assert standing.retrieve(job("Viora", name)).passages
    ingest(library(client, tmp_path, Other()), path, name, anew=True)
    with pytest.raises(JobError, match="embedded with other, not with hashed-rarity-512"):
        standing.retrieve(job("Viora", name))


def test_many_threads(retriever, collection) -> None:
    wanted = retriever.retrieve(job("Viora logo", collection))
    ready = threading.Barrier(8)

    def retrieve(_: int) -> set[Context]:
        ready.wait()
        return {retriever.retrieve(job("Viora logo", collection)) for _ in range(5)}

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(retrieve, range(8))) == {wanted}


def test_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_client("http://127.0.0.1:9", "", tmp_path)
    client = QdrantClient(url="http://127.0.0.1:9", timeout=1, check_compatibility=False)
    retriever = QdrantRetriever(lambda: client, Embedders(HashedEmbedder()), QdrantProfile())
    with pytest.raises(Unavailable):
        retriever.retrieve(job("Viora logo", "brands"))


def test_a_server_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the connection and does not answer: the job goes back when the limit is over."""
    monkeypatch.setattr("pipeline.retrieval.client.TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = QdrantClient(url=url, timeout=1, check_compatibility=False)
        retriever = QdrantRetriever(lambda: client, Embedders(HashedEmbedder()), QdrantProfile())
        for call in (
            lambda: open_client(url, "", tmp_path),
            lambda: retriever.retrieve(job("Viora logo", "brands")),
        ):
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="did not answer"):
                call()
            assert 1 <= time.monotonic() - begun < 15
