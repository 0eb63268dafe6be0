"""A judge as a contributor would add it, in one file."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.media.checks import problem
from pipeline.models import Models
from pipeline.profile import JudgeProfile


class BrightnessProfile(JudgeProfile):
    """The keys of a `[[judge]]` of this kind."""

    kind: Literal["brightness"] = "brightness"
    middle: float = Field(default=0.5, gt=0, lt=1, description="brightness of a chance of a half")


class BrightnessJudge:
    """The Judge port without a model: the brighter an image, the better."""

    def __init__(self, _models: Models, profile: BrightnessProfile) -> None:
        self._middle = profile.middle

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order."""
        del request
        scores = []
        for image in images:
            if reason := problem(image):
                scores.append(Score(raw=0, calibrated=0, valid=False, reason=reason))
            else:
                mean = float(image.mean())
                scores.append(Score(raw=mean, calibrated=mean / (mean + self._middle)))
        return scores
