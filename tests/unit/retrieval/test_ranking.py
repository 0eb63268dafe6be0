import numpy as np
import pytest
from qdrant_client.models import ScoredPoint

from pipeline.retrieval.retriever import different, fused


def found(**scores: float) -> list[ScoredPoint]:
    return [ScoredPoint(id=i, version=0, score=score) for i, score in scores.items()]


def ranked(*searches: list[ScoredPoint], shares: tuple[float, ...]) -> dict[object, float]:
    return {point.id: pytest.approx(point.score) for point in fused(searches, shares)}


def test_scores_are_scaled_and_summed_by_their_shares() -> None:
    cosines, bm25 = found(a=0.9, b=0.7, c=0.5), found(b=12.0, d=6.0, c=4.0)
    summed = ranked(cosines, bm25, shares=(0.6, 0.4))
    assert summed == {"b": 0.6 * 0.5 + 0.4, "a": 0.6, "d": 0.4 * 0.25, "c": 0.0}
    assert list(summed) == ["b", "a", "d", "c"]


def test_a_single_search_ranks_by_its_own_share() -> None:
    assert ranked(found(a=3.0), shares=(0.6,)) == {"a": 0.6}
    assert ranked(found(a=3.0, b=3.0), [], shares=(0.6, 0.4)) == {"a": 0.6, "b": 0.6}
    assert ranked([], [], shares=(0.6, 0.4)) == {}


def test_of_equals_the_first_comes_first() -> None:
    assert list(ranked(found(a=1.0, b=1.0), found(c=2.0, d=2.0), shares=(0.5, 0.5))) == list("abcd")


def test_nearly_the_same_is_taken_once() -> None:
    directions = {"a": [2.0, 0.0], "copy": [1.0, 0.0], "near": [1.0, 0.1], "far": [0.0, 1.0]}

    def direction(name: str) -> np.ndarray:
        return np.array(directions[name], dtype=np.float32)

    assert different(directions, direction, 0.9, 4) == ["a", "far"]
    assert different(directions, direction, 0.9, 1) == ["a"]
    assert different(directions, direction, 1.0, 4) == list(directions)
