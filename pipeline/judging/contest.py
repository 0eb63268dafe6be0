"""The contest's decisions: how many candidates next, and who wins. Plain Python, no device."""

from collections.abc import Sequence

from pipeline.job import Job, Score


def next_wave(job: Job, scores: Sequence[Score]) -> int:
    """How many more candidates to start, given the scores so far in order; 0 ends the contest.

    `best_of` starts all at once; `first_above` starts a wave at a time and stops as soon as one
    candidate passes. Never more than `job.candidates` in all.
    """
    left = job.candidates - len(scores)
    if job.contest == "best_of":
        return left
    if any(passes(job, score) for score in scores):
        return 0
    return min(job.wave, left)


def winner(scores: Sequence[Score]) -> int | None:
    """The index of the best valid score, the first of equals; None when all are invalid."""
    valid = [index for index, score in enumerate(scores) if score.valid]
    return max(valid, key=lambda index: scores[index].calibrated, default=None)


def passes(job: Job, score: Score) -> bool:
    """Whether a candidate reaches the job's gate."""
    return score.valid and score.calibrated >= job.threshold
