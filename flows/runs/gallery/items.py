"""The gallery's items, one for each row, as plain data."""

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

from pipeline.record import CandidateRecord, Outcome
from pipeline.records.columns import COLUMNS, line_of

Card = dict[str, Any]
Chunk = dict[str, list[Any]]

DIGITS = 4
PLAIN = {
    name: COLUMNS[name]
    for name in (
        "job_id", "row", "name", "keywords", "reason", "width", "height", "winner", "created_at",
        "notices", "prompt", "text", "negative", "style", "threshold", "steps", "guidance", "meta",
    )
}  # fmt: skip
"""The columns that are on a card as they are in the record."""


def card_of(outcome: Outcome) -> Card:
    """The card of a row. A source is its title, address, text and score, and 1 if it was used."""
    card = line_of(PLAIN, outcome) | {
        "outcome": outcome.status.value,
        "score": _rounded(outcome.score),
        "seed": _exact(outcome.seed),
        "image": outcome.image and quote(f"../{outcome.image.path}"),
        "device_seconds": round(outcome.device_time, 3),
        "judges": list(judges) if len(judges := _judges(outcome.candidates)) > 1 else [],
        "candidates": [_candidate(candidate, judges) for candidate in outcome.candidates],
        "sources": [
            [each.title, each.source, each.text, _rounded(each.score), int(outcome.uses(each))]
            for each in outcome.winners_context.sources
        ],
    }
    return {key: value for key, value in card.items() if value not in (None, "", [], {})}


def chunk_of(cards: Sequence[Card]) -> Chunk:
    """Consecutive cards and the passages in them, each once; a source is then its passage's index,
    its score, and 1 if it was used.
    """
    passages = dict[tuple[str, ...], int]()
    for card in cards:
        if sources := card.get("sources"):
            card["sources"] = [
                [passages.setdefault(tuple(passage), len(passages)), score, used]
                for *passage, score, used in sources
            ]
    return {"passages": [list(passage) for passage in passages], "cards": list(cards)}


def _judges(candidates: Sequence[CandidateRecord]) -> dict[str, None]:
    """The names of the judges of the candidates that have a score, in order."""
    scores = [candidate.score for candidate in candidates if candidate.score]
    return dict.fromkeys(part.judge for score in scores for part in score.parts)


def _candidate(candidate: CandidateRecord, judges: Collection[str]) -> list[Any]:
    """Index, seed, calibrated score, raw score and, if invalid, the reason; of several judges also
    the chance by each, none where it did not see the image. A dropped candidate has no score, and
    the raw score of its last preview.
    """
    score = candidate.score
    if score is None:
        last = candidate.previews[-1].raw if candidate.previews else None
        return [candidate.index, _exact(candidate.seed), None, _rounded(last), "dropped"]
    marks = [_rounded(score.calibrated), _rounded(score.raw)]
    entry = [candidate.index, _exact(candidate.seed), *marks]
    if not score.valid:
        return [*entry, score.reason or "invalid"]
    if len(judges) < 2:
        return entry
    chances = {part.judge: _rounded(part.calibrated) for part in score.parts}
    return [*entry, "", [chances.get(judge) for judge in judges]]


def _exact(seed: int | None) -> int | str | None:
    """A seed as a browser shows it: its numbers are exact up to 2^53."""
    return seed if seed is None or seed < 2**53 else str(seed)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
