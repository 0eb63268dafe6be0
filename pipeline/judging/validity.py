"""Scores of images of which some may be invalid: no judge sees those."""

from collections.abc import Callable, Iterable, Sequence

from pipeline.job import ImageArray, Score
from pipeline.media.checks import problem


def invalid(reason: str) -> Score:
    """The score of an invalid image."""
    return Score(raw=0, calibrated=0, valid=False, reason=reason)


NO_NUMBER = invalid("the judge's answer is not a number")


def scores_of_valid(
    images: Sequence[ImageArray], scores: Callable[[Sequence[ImageArray]], Iterable[Score]]
) -> list[Score]:
    """One score per image, in order; `scores` gives those of the valid images, and is not asked
    where there are none.
    """
    problems = [problem(image) for image in images]
    valid = [image for image, reason in zip(images, problems, strict=True) if not reason]
    found = iter(scores(valid) if valid else ())
    return [invalid(reason) if reason else next(found) for reason in problems]
