"""Numbers of images as scores: a logistic regression with one slope and one offset."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.job import ImageArray, Score
from pipeline.media.checks import problem


@dataclass(frozen=True)
class Calibration:
    """chance = sigmoid(slope · number + offset)."""

    slope: float
    offset: float

    def chance(self, number: float) -> float:
        """The probability, 0..1, that an image with this number is right."""
        return 0.5 * (1 + math.tanh((self.slope * number + self.offset) / 2))


def scores_of(
    images: Sequence[ImageArray],
    measure: Callable[[Sequence[ImageArray]], Sequence[float]],
    calibration: Calibration,
) -> list[Score]:
    """One score per image, in order, by the number that `measure` gives each valid image; it does
    not see the others.
    """
    problems = [problem(image) for image in images]
    valid = [image for image, reason in zip(images, problems, strict=True) if not reason]
    numbers = iter(measure(valid) if valid else ())
    scores = []
    for reason in problems:
        number = 0.0 if reason else float(next(numbers))
        if not math.isfinite(number):
            reason = "the judge's answer is not a number"
        if reason:
            scores.append(Score(raw=0, calibrated=0, valid=False, reason=reason))
        else:
            scores.append(Score(raw=number, calibrated=calibration.chance(number)))
    return scores
