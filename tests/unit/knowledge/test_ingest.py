import json
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from pipeline.errors import KnowledgeError
from pipeline.knowledge import schema
from pipeline.knowledge.embedding import HashedEmbedder
from pipeline.knowledge.ingest import IngestReport, ingest

EMBEDDER = HashedEmbedder()


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


def put(client: QdrantClient, path: Path, *texts: str | dict[str, str]) -> IngestReport:
    rows = [{"text": text} if isinstance(text, str) else text for text in texts]
    path.write_text("\n".join(map(json.dumps, rows)))
    return ingest(client, path, "facts", EMBEDDER)


def stored(client: QdrantClient) -> set[str]:
    points, _ = client.scroll("facts", limit=1000)
    return {point.payload["text"] for point in points}


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.unchanged, report.removed


def test_ingesting_again_changes_nothing(client, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    assert counts(put(client, path, "a", "b", "a")) == (2, 0, 0, 0)
    assert counts(put(client, path, "b", "a")) == (0, 0, 2, 0)
    assert stored(client) == {"a", "b"}


def test_the_collection_holds_what_the_file_says_now(client, tmp_path: Path) -> None:
    path, other = tmp_path / "facts.jsonl", tmp_path / "other.jsonl"
    put(client, other, "z")
    put(client, path, "the logo is red", "b")
    titled = {"text": "b", "title": "B"}
    assert counts(put(client, path, "the logo is blue", titled)) == (1, 1, 0, 1)
    assert stored(client) == {"the logo is blue", "b", "z"}


def test_many_passages_go_in_batches(client, tmp_path: Path) -> None:
    path, steps = tmp_path / "facts.jsonl", list[int]()
    path.write_text("\n".join(json.dumps({"text": f"fact {n}"}) for n in range(150)) + "\n{")
    report = ingest(client, path, "facts", EMBEDDER, steps.append)
    assert steps == [64, 64, 22]
    assert counts(report) == (150, 0, 0, 0)
    assert [bad.line for bad in report.bad] == [151]
    assert client.count("facts").count == 150
    assert put(client, path, "fact 3").removed == 149


def test_one_collection_one_embedding(client, tmp_path: Path) -> None:
    class Other(HashedEmbedder):
        name = "other"

    path = tmp_path / "facts.jsonl"
    put(client, path, "a")
    with pytest.raises(KnowledgeError, match="embedded with hashed-512, not with other"):
        ingest(client, path, "facts", Other())


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 101])
def test_names_of_collections(client, tmp_path: Path, name: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"text": "a"}')
    with pytest.raises(KnowledgeError, match="Collection"):
        ingest(client, path, name, EMBEDDER)


def test_a_missing_file_makes_no_collection(client, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="There is no"):
        ingest(client, tmp_path / "missing.md", "facts", EMBEDDER)
    assert not client.collection_exists("facts")


def test_of_a_picture_and_what_is_said_of_it_the_words_go_in(client, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    pair = {"text": "a", "image": "a.png", "license": "CC0"}
    put(client, tmp_path / "facts.jsonl", pair)
    assert counts(ingest(client, tmp_path, "all", EMBEDDER)) == (1, 0, 0, 0)
    points, _ = client.scroll("all")
    assert schema.passage("id", points[0].payload, 1.0).text == "a"
