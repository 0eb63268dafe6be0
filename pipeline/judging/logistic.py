"""Numbers of images as scores: a logistic regression with one slope and one offset."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.job import ImageArray, Score
from pipeline.judging.validity import NO_NUMBER, scores_of_valid


@dataclass(frozen=True)
class Calibration:
    """chance = sigmoid(slope · number + offset)."""

    slope: float
    offset: float

    def chance(self, number: float) -> float:
        """The probability, 0..1, that an image with this number is right."""
        return 0.5 * (1 + math.tanh((self.slope * number + self.offset) / 2))

    def score(self, number: float) -> Score:
        """The score of an image with this number; one that is not finite makes it invalid."""
        if not math.isfinite(number):
            return NO_NUMBER
        return Score(raw=float(number), calibrated=self.chance(number))


def scores_of(
    images: Sequence[ImageArray],
    measure: Callable[[Sequence[ImageArray]], Sequence[float]],
    calibration: Calibration,
) -> list[Score]:
    """One score per image, in order, by the number that `measure` gives each valid image; it does
    not see the others.
    """
    return scores_of_valid(images, lambda valid: map(calibration.score, measure(valid)))
