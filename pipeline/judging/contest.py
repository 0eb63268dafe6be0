"""The contest's decisions: how many start, which are dropped, which wins, and which phrases of the
text a second round is to show. Plain Python, no device.

A contest goes in waves: `best_of`, `race` and `draft` start all candidates at once, `first_above`,
`stop` and `race_above` start `wave` at a time and end with the wave in which one passes. `stop`
ends too once the scores so far leave the next candidate too little chance (`stopping`). In the race
modes the rivals of a wave are halved, or cut to another fraction, at each of the job's rungs, by
the judge's scores of their previews (successive halving: Jamieson and Talwalkar 2016,
https://arxiv.org/abs/1502.07943). A rung is decided once all rivals have reached it, so the order
of arrival has no influence. In `draft` all candidates are rendered in a few steps first, and the
best again with all steps, from the same noise (Diffusion Preview, 2025, arXiv:2512.13592).
"""

import re
from collections.abc import Callable, Collection, Sequence
from math import ceil

from pipeline.errors import JobError
from pipeline.job import Check, CheckKind, Job, Rung, Score
from pipeline.judging import stopping

DOUBT = 0.5
"""P(yes) below which an image does not pass a check."""
LOCAL: Collection[CheckKind] = ("object", "attribute", "text")
"""Kinds of checks about a part of the image. The number of things and where they stand are layout,
which an image keeps from the one that it begins from.
"""
PARTS = 12
"""Most phrases of a text that are tried, the first ones."""

_BETWEEN = re.compile(
    r"(?<=[^\s,;.])"
    r"(?=(?:\s*[,;.]\s*|\s+(?:with|and|on|in|at|under|above|below|beside|behind|before)\s)\S)"
)
_JOINT = re.compile(r"^[\s,;.]+|(?<![\s,;.])[\s,;.]+$")


def next_wave(job: Job, scores: Sequence[Score | None]) -> int:
    """The number of candidates to start next, given the scores so far in order, None for a dropped
    one; 0 ends the contest. At least one in all, and never more than `job.candidates`. Raises
    JobError for a `stop` without a prior.
    """
    left = job.candidates - len(scores)
    if job.contest in ("best_of", "race", "draft"):
        return left
    if any(passes(job, score) for score in scores) or given_up(job, scores) is not None:
        return 0
    return min(job.wave, left)


def given_up(job: Job, scores: Sequence[Score | None]) -> float | None:
    """The chance of the next candidate with which a contest of `stop` is given up after these
    scores; None where it goes on, has a candidate that passes, or all its candidates. Invalid and
    dropped candidates, and those that not all judges saw, count for nothing. Raises JobError
    without a prior.
    """
    decided = any(passes(job, score) for score in scores) or len(scores) >= job.candidates
    if job.contest != "stop" or decided or not scores:
        return None
    if job.prior is None:
        raise JobError("the job has no prior, without which the contest `stop` knows no chances")
    finals = [
        stopping.logit(score.calibrated)
        for score in scores
        if score and score.valid and score.final
    ]
    chance = stopping.chance(job.prior, finals, stopping.logit(job.threshold))
    return chance if chance < job.stop_below else None


def another_round(job: Job, scores: Sequence[Score | None], held: int) -> bool:
    """True where no candidate passes and the job has more rounds than were `held`."""
    return held < job.rounds and not any(passes(job, score) for score in scores)


def failed_checks(checks: Sequence[Check], scores: Sequence[Score | None]) -> tuple[Check, ...]:
    """The checks that no candidate passes, of those whose judge answered them: the prompt is at
    fault, not the seed (PRIS, 2025, arXiv:2512.03534).
    """
    answers = [
        part.answers
        for score in scores
        if score and score.valid
        for part in score.parts
        if len(part.answers) == len(checks)
    ]
    return tuple(
        check
        for check, given in zip(checks, zip(*answers, strict=True), strict=False)
        if max(given) < DOUBT
    )


def local_faults(checks: Sequence[Check], score: Score) -> tuple[Check, ...]:
    """The checks that a candidate fails, where an edit, which keeps its layout, may mend them: all
    are LOCAL, it passes as many others, and of the objects asked for it shows one. Else none.
    """
    failed = failed_checks(checks, [score])
    objects = [check for check in checks if check.kind == "object"]
    shown = not objects or any(check not in failed for check in objects)
    local = all(check.kind in LOCAL for check in failed)
    return failed if local and shown and 2 * len(failed) <= len(checks) else ()


def rungs(job: Job) -> tuple[Rung, ...]:
    """The rungs at which candidates are dropped; none outside the race modes."""
    return job.rungs if job.contest in ("race", "race_above") else ()


def survivors(rung: Rung, previews: Sequence[Score]) -> list[int]:
    """The indices of the rivals that go on, given all previews' scores."""
    return best(max(1, ceil(rung.keep * len(previews))), previews)


def best(count: int, previews: Sequence[Score]) -> list[int]:
    """The indices of so many previews or drafts, the best ones, ties by index; in order."""
    ranked = sorted(range(len(previews)), key=lambda i: (not previews[i].valid, -previews[i].raw))
    return sorted(ranked[:count])


def winner(scores: Sequence[Score | None]) -> int | None:
    """The index of the best valid score, the first of equals; None without a valid one. One that is
    final, which all judges have given, is before any that is not.
    """
    valid = {index: score for index, score in enumerate(scores) if score and score.valid}
    return max(valid, key=lambda at: (valid[at].final, valid[at].calibrated), default=None)


def passes(job: Job, score: Score | None) -> bool:
    """True for a valid and final score at or above the job's threshold."""
    if score is None or not (score.valid and score.final):
        return False
    return score.calibrated >= job.threshold


def parts(text: str) -> list[str]:
    """A caption's phrases, each with the word or comma that joins it to the one before."""
    return _BETWEEN.split(text)


def missing_phrases(text: str, passes: Callable[[str], bool]) -> tuple[str, ...]:
    """The phrases that an image does not show, which does not pass with the whole text; the whole
    text where no single phrase explains it, for example because the subject is wrong.

    A phrase is missing if the image passes without it; each is left out in turn. Phrases are not
    scored by themselves, because small judges know whole captions only.
    """
    phrases = parts(text)
    tried = range(min(len(phrases), PARTS)) if len(phrases) > 1 else ()
    missed = [at for at in tried if passes(_tidy("".join(phrases[:at] + phrases[at + 1 :])))]
    return tuple(_tidy(phrases[at]) for at in missed) or (text,)


def _tidy(text: str) -> str:
    return _JOINT.sub("", text)
