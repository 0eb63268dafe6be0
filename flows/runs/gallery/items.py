"""The gallery's items, one for each row, as plain data."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pipeline.job import CandidateRecord, Outcome
from pipeline.records.columns import COLUMNS, line_of

Card = dict[str, Any]
Chunk = dict[str, list[Any]]
Passages = dict[tuple[str, str, str], int]
"""Title, source and text of each passage, with its index in the chunk."""

DIGITS = 4
OF_MANIFEST = ["job_id", "row", "name", "keywords", "outcome", "reason", "score", "seed"]
"""Of the manifest's columns those on a card."""
OF_RECORD = {
    name: COLUMNS[name]
    for name in (
        "width", "height", "winner", "created_at", "notices", "prompt", "text", "negative", "style",
        "threshold", "steps", "guidance", "meta",
    )
}  # fmt: skip
"""The columns that a card has beside them, as they are in the record."""


def chunk_of(lines: Sequence[dict[str, Any]], outcomes: dict[str, Outcome]) -> Chunk:
    """The cards of consecutive manifest lines, and the passages they refer to by index.

    A line without a record has a card with the values of the manifest alone.
    """
    passages, cards = Passages(), list[Card]()
    for line in lines:
        card = line | {"score": _rounded(line["score"]), "seed": _exact(line["seed"])}
        if outcome := outcomes.get(line["job_id"]):
            card |= line_of(OF_RECORD, outcome)
            card |= {
                "image": outcome.image and quote(f"../{outcome.image.path}"),
                "device_seconds": round(outcome.device_time, 3),
                "candidates": [_candidate(candidate) for candidate in outcome.candidates],
                "sources": [
                    [
                        passages.setdefault((each.title, each.source, each.text), len(passages)),
                        _rounded(each.score),
                    ]
                    for each in outcome.winners_context.sources
                ],
            }
        cards.append({k: value for k, value in card.items() if value not in (None, "", [], {})})
    return {"passages": [list(passage) for passage in passages], "cards": cards}


def _candidate(candidate: CandidateRecord) -> list[Any]:
    """Index, seed, calibrated score, cosine and, if invalid, the reason. A dropped candidate has no
    score, and the cosine of its last preview.
    """
    score = candidate.score
    if score is None:
        last = candidate.previews[-1].raw if candidate.previews else None
        return [candidate.index, _exact(candidate.seed), None, _rounded(last), "dropped"]
    marks = [_rounded(score.calibrated), _rounded(score.raw)]
    entry = [candidate.index, _exact(candidate.seed), *marks]
    return entry if score.valid else [*entry, score.reason or "invalid"]


def _exact(seed: int | None) -> int | str | None:
    """A seed as a browser shows it: its numbers are exact up to 2^53."""
    return seed if seed is None or seed < 2**53 else str(seed)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
