import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from pipeline.errors import KnowledgeError
from pipeline.retrieval.ingest import IngestReport, ingest
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.retrieval.versions import names
from tests.harness.libraries import library


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


class Other(HashedEmbedder):
    """Another embedding of the same size."""

    name = "other"


def put(
    client: QdrantClient, path: Path, *texts: str | dict[str, str], anew: bool = False
) -> IngestReport:
    rows = [{"text": text} if isinstance(text, str) else text for text in texts]
    path.write_text("\n".join(map(json.dumps, rows)))
    return ingest(library(client, path.parent), path, "facts", anew=anew)


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
    report = ingest(library(client, tmp_path), path, "facts", steps.append)
    assert steps == [64, 64, 22]
    assert counts(report) == (150, 0, 0, 0)
    assert [bad.line for bad in report.bad] == [151]
    assert client.count("facts").count == 150
    assert put(client, path, "fact 3").removed == 149


def test_one_collection_one_embedding(client, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    put(client, path, "a")
    with pytest.raises(KnowledgeError, match="embedded with hashed-rarity-512, not with other"):
        ingest(library(client, tmp_path, Other()), path, "facts")


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 101])
def test_names_of_collections(client, tmp_path: Path, name: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"text": "a"}')
    with pytest.raises(KnowledgeError, match="Collection"):
        ingest(library(client, tmp_path), path, name)


def test_a_missing_file_makes_no_collection(client, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="There is no"):
        ingest(library(client, tmp_path), tmp_path / "missing.md", "facts")
    assert not client.collection_exists("facts")


class Interrupted(Exception):
    """The process was ended."""


class Fragile:
    """A client whose process ends with its call number `last`, before or after it took effect."""

    def __init__(self, client: QdrantClient, last: int, *, after: bool) -> None:
        self._client, self._left, self._after = client, last, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if self._left < 0:
            raise Interrupted
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Interrupted
        answer = method(*given, **named)
        if self._left < 0:
            raise Interrupted
        return answer


def whole(client: QdrantClient) -> dict[object, tuple[object, object]]:
    points, _ = client.scroll("facts", limit=1000, with_vectors=True)
    return {point.id: (point.payload, point.vector) for point in points}


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_ingest_is_mended_by_the_next(tmp_path: Path, after: bool) -> None:
    path, old = tmp_path / "facts.jsonl", [f"fact {n}" for n in range(100)]
    new = [{"text": text, "title": "new"} for text in old[50:]] + [f"more {n}" for n in range(60)]
    undisturbed = QdrantClient(":memory:")
    put(undisturbed, path, *old)
    put(undisturbed, path, *new)
    interruptions = 0
    for last in count():
        client = QdrantClient(":memory:")
        put(client, path, *old)
        fragile = cast(QdrantClient, Fragile(client, last, after=after))
        try:
            put(fragile, path, *new)
        except Interrupted:
            interruptions += 1
            put(client, path, *new)
        assert whole(client) == whole(undisturbed)
        if interruptions <= last:
            break
    assert interruptions >= 8


@pytest.mark.slow
def test_an_interrupted_first_ingest(tmp_path: Path) -> None:
    path, texts = tmp_path / "facts.jsonl", [f"fact {n}" for n in range(100)]
    undisturbed = QdrantClient(":memory:")
    put(undisturbed, path, *texts)
    for last in range(6):
        client = QdrantClient(":memory:")
        with pytest.raises(Interrupted):
            put(cast(QdrantClient, Fragile(client, last, after=True)), path, *texts)
        put(client, path, *texts)
        assert whole(client) == whole(undisturbed)


def test_a_new_version_takes_the_place_of_the_old_at_once(client, tmp_path: Path) -> None:
    path, beside = tmp_path / "facts.jsonl", tmp_path / "beside.jsonl"
    put(client, path, "a", "b")
    put(client, beside, "c")
    seen = list[set[str]]()
    path.write_text('{"text": "d"}')
    other = library(client, tmp_path, Other())
    report = ingest(other, path, "facts", lambda _: seen.append(stored(client)), anew=True)
    assert seen == [{"a", "b", "c"}]
    assert counts(report) == (1, 0, 0, 0)
    assert stored(client) == {"d"}
    assert names(client) == ["facts"]
    assert len(client.get_collections().collections) == 1
    with pytest.raises(KnowledgeError, match=r"embedded with other.*--anew to replace it"):
        put(client, path, "e")


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_new_version_leaves_the_old_one_until_it_is_whole(
    tmp_path: Path, after: bool
) -> None:
    path, beside = tmp_path / "facts.jsonl", tmp_path / "beside.jsonl"
    for last in count():
        client = QdrantClient(":memory:")
        put(client, beside, "z")
        put(client, path, "a", "b")
        try:
            put(cast(QdrantClient, Fragile(client, last, after=after)), path, "b", "c", anew=True)
        except Interrupted:
            assert stored(client) in ({"a", "b", "z"}, {"b", "c"})
            put(client, path, "b", "c", anew=True)
            done = False
        else:
            done = True
        assert stored(client) == {"b", "c"}
        assert len(client.get_collections().collections) == 1
        if done:
            break
    assert last >= 8


def test_what_another_tool_made_is_not_replaced(client, tmp_path: Path) -> None:
    client.create_collection("facts", VectorParams(size=4, distance=Distance.DOT))
    with pytest.raises(KnowledgeError, match="not made by `pressrun ingest`"):
        put(client, tmp_path / "facts.jsonl", "a", anew=True)
