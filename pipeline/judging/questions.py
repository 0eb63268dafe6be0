"""Judges images by questions that a vision-language model answers."""

import math
import re
from collections.abc import Sequence
from statistics import geometric_mean

from pipeline.job import ImageArray, JudgeRequest, Score, ScorePart
from pipeline.media.checks import problem
from pipeline.models import Models
from pipeline.models.vision_language import VisionLanguage
from pipeline.profile import QuestionsJudgeProfile

QUESTION = "{} Answer with Yes or No."
PHRASES = 12
"""Most phrases of a text that are asked about, the first ones."""
LEAST = 1e-6
"""The chance that stands for 0, which has no logarithm."""

_BETWEEN = re.compile(r"\s*[,;.]\s*(?:(?:and|with)\s+)?|\s+(?:and|with)\s+")


class QuestionsJudge:
    """The Judge port over a vision-language model.

    It is asked the brief's checks, and without any whether the image shows the text: VQAScore (Lin
    et al. 2024, arXiv:2404.01291). The chance is the geometric mean of all P(yes), as in Soft-TIFA
    (Kamath et al. 2025, arXiv:2512.16853), or the lowest of them where that is below the floor.
    """

    def __init__(self, models: Models, profile: QuestionsJudgeProfile) -> None:
        self._model = VisionLanguage(
            models, profile.model, "vision_language", dtype=profile.dtype, batch=profile.batch
        )
        self._profile = profile

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; the model does not see invalid images."""
        problems = [problem(image) for image in images]
        valid = [each for each, reason in zip(images, problems, strict=True) if not reason]
        asked = [QUESTION.format(question) for question in self.questions(request)]
        chances = iter(self._model.chances(valid, asked).tolist() if valid else [])
        return [
            Score(raw=0, calibrated=0, valid=False, reason=reason)
            if reason
            else self._score(next(chances))
            for reason in problems
        ]

    def questions(self, request: JudgeRequest) -> list[str]:
        """The brief's checks; without any, whether the image shows the text and, if the profile
        says so, each of its phrases.
        """
        if request.checks:
            return [check.question for check in request.checks]
        text = request.words(self._profile.against)
        phrases = [part for part in _BETWEEN.split(text) if part] if self._profile.phrases else []
        shown = [text, *phrases[:PHRASES]] if len(phrases) > 1 else [text]
        return [f'Does this image show "{each}"?' for each in shown]

    def _score(self, answers: Sequence[float]) -> Score:
        if not all(map(math.isfinite, answers)):
            reason = "the judge's answer is not a number"
            return Score(raw=0, calibrated=0, valid=False, reason=reason)
        mean, least = geometric_mean(max(each, LEAST) for each in answers), min(answers)
        chance = least if least < self._profile.floor else min(mean, 1.0)
        part = ScorePart(
            judge=self._profile.name, raw=mean, calibrated=chance, answers=tuple(answers)
        )
        return Score(raw=mean, calibrated=chance, parts=(part,))
