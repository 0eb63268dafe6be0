"""What the gallery says about one row, as plain data."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pipeline.job import Brief, CandidateRecord, Job, Outcome, Passage

Card = dict[str, Any]
Chunk = dict[str, list[Any]]

DIGITS = 4


def chunk_of(lines: Sequence[dict[str, Any]], outcomes: dict[str, Outcome]) -> Chunk:
    """The cards of consecutive manifest lines, and the passages they refer to by index.

    A line whose record cannot be found any more has a card with what the manifest says.
    """
    passages = dict[tuple[str, str, str], int]()
    cards = [_card(line, outcomes.get(line["job_id"]), passages) for line in lines]
    return {"passages": [list(passage) for passage in passages], "cards": cards}


def _card(
    line: dict[str, Any], outcome: Outcome | None, passages: dict[tuple[str, str, str], int]
) -> Card:
    card = {
        "id": line["job_id"],
        "row": line["row"],
        "name": line["name"],
        "keywords": line["keywords"],
        "outcome": line["outcome"],
        "reason": line["reason"],
        "score": _rounded(line["score"]),
        "seed": _exact(line["seed"]),
    }
    if outcome:
        card |= _of_outcome(outcome)
        context = outcome.winners_context
        found = (*context.passages, *context.references)
        card["sources"] = [_source(passage, passages) for passage in found]
    return {key: value for key, value in card.items() if value not in (None, "", [], {})}


def _of_outcome(outcome: Outcome) -> Card:
    image = outcome.image
    return {
        "image": quote(f"../{image.path}") if image else None,
        "size": [image.width, image.height] if image else None,
        "winner": outcome.winner,
        "candidates": [_candidate(candidate) for candidate in outcome.candidates],
        "seconds": round(outcome.device_time, 3),
        "made": outcome.created_at,
        "notices": list(outcome.notices),
        **_of_brief(outcome.brief),
        **_of_job(outcome.job),
    }


def _of_brief(brief: Brief | None) -> Card:
    if not brief:
        return {}
    return {"prompt": brief.prompt, "text": brief.text, "negative": brief.negative}


def _of_job(job: Job | None) -> Card:
    if not job:
        return {}
    return {
        "style": job.style,
        "threshold": job.threshold,
        "steps": job.steps,
        "guidance": job.guidance,
        "meta": job.meta,
    }


def _candidate(candidate: CandidateRecord) -> list[Any]:
    """Index, seed, calibrated score, cosine and, where invalid, why; of one that was dropped, the
    cosine of its last preview.
    """
    score = candidate.score
    if score is None:
        last = candidate.previews[-1].raw if candidate.previews else None
        return [candidate.index, _exact(candidate.seed), None, _rounded(last), "dropped"]
    marks = [_rounded(score.calibrated), _rounded(score.raw)]
    entry = [candidate.index, _exact(candidate.seed), *marks]
    return entry if score.valid else [*entry, score.reason or "invalid"]


def _source(passage: Passage, passages: dict[tuple[str, str, str], int]) -> list[Any]:
    """The passage's index among the chunk's, and its rank score."""
    content = (passage.title, passage.source, passage.text)
    return [passages.setdefault(content, len(passages)), _rounded(passage.score)]


def _exact(seed: int | None) -> int | str | None:
    """A seed as a browser shows it: its numbers are exact up to 2^53."""
    return seed if seed is None or seed < 2**53 else str(seed)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
