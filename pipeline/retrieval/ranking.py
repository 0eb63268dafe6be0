"""Fuses the results of several searches into one list, and removes near duplicates."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from qdrant_client.models import ScoredPoint

from pipeline.retrieval.embedders import Vectors, normalised

Item = TypeVar("Item")

ROUNDING = 1e-5
"""Tolerance of a cosine: with `alike` 1 nothing counts as a duplicate, not even an exact copy."""


def fused(found: Sequence[Sequence[ScoredPoint]], shares: Sequence[float]) -> list[ScoredPoint]:
    """All points that the searches found, best first; `shares` are the searches' weights.

    A point's score is the sum over the searches that found it of share × its score there, scaled
    from 0 for the last of them to 1 for the first. Bruch, Gai and Ingber, "An Analysis of Fusion
    Functions for Hybrid Retrieval" (2023, arXiv:2210.11934), 3: the convex combination.
    """
    points, scores = dict[object, ScoredPoint](), dict[object, float]()
    for results, share in zip(found, shares, strict=True):
        values = np.asarray([point.score for point in results], dtype=np.float32)
        width = float(np.ptp(values)) if len(values) else 0.0
        scaled = (values - values.min()) / width if width else np.ones_like(values)
        for point, value in zip(results, scaled, strict=True):
            points.setdefault(point.id, point)
            scores[point.id] = scores.get(point.id, 0.0) + share * value
    ranked = sorted(points, key=lambda each: -scores[each])
    return [points[each].model_copy(update={"score": scores[each]}) for each in ranked]


def different(
    ranked: Iterable[Item], direction: Callable[[Item], Vectors], alike: float, count: int
) -> list[Item]:
    """The best `count` items, without near duplicates: items whose cosine with a better one is
    above `alike`. Yasunaga et al., "Retrieval-Augmented Multimodal Language Modeling" (2022), 3.1.
    """
    kept, directions = list[Item](), list[Vectors]()
    for item in ranked:
        if len(kept) == count:
            break
        own = normalised(direction(item))
        if all(own @ other <= alike + ROUNDING for other in directions):
            kept.append(item)
            directions.append(own)
    return kept
