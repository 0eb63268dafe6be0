"""Judges images by questions that a vision-language model in this process answers."""

from collections.abc import Sequence

from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.asking import scores_by
from pipeline.models import Models
from pipeline.models.vision_language import VisionLanguage
from pipeline.profile import QuestionsJudgeProfile


class QuestionsJudge:
    """The Judge port over a vision-language model."""

    def __init__(self, models: Models, profile: QuestionsJudgeProfile) -> None:
        self._model = VisionLanguage(
            models, profile.model, "vision_language", dtype=profile.dtype, batch=profile.batch
        )
        self._profile = profile

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; the model does not see invalid images."""

        def chances(
            valid: Sequence[ImageArray], questions: Sequence[str]
        ) -> Sequence[Sequence[float]]:
            found: list[list[float]] = self._model.chances(valid, questions).tolist()
            return found

        return scores_by(chances, images, request, self._profile)
