"""Questions about an image, and their answers as its score, whoever answers them.

Without checks of the brief the question is whether the image shows the text: VQAScore (Lin et al.
2024, arXiv:2404.01291). The chance is the geometric mean of all P(yes), as in Soft-TIFA (Kamath et
al. 2025, arXiv:2512.16853), or the lowest of them where that is below the floor.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from statistics import geometric_mean

from pipeline.job import ImageArray, JudgeRequest, Score, ScorePart
from pipeline.judging.validity import NO_NUMBER, scores_of_valid
from pipeline.profile import AskingJudgeProfile

QUESTION = "{} Answer with Yes or No."
PHRASES = 12
"""Most phrases of a text that are asked about, the first ones."""
LEAST = 1e-6
"""The chance that stands for 0, which has no logarithm."""

Chances = Callable[[Sequence[ImageArray], Sequence[str]], Iterable[Sequence[float]]]
"""P(yes) of each question about each image, [images, questions]."""

_BETWEEN = re.compile(r" ?[,;.] ?(?:(?:and|with) )?| (?:and|with) ")


def scores_by(
    chances: Chances,
    images: Sequence[ImageArray],
    request: JudgeRequest,
    profile: AskingJudgeProfile,
) -> list[Score]:
    """One score per image, in order; `chances` is not asked about invalid images."""
    asked = [QUESTION.format(question) for question in questions_of(request, profile)]
    return scores_of_valid(
        images, lambda valid: (_score(each, profile) for each in chances(valid, asked))
    )


def questions_of(request: JudgeRequest, profile: AskingJudgeProfile) -> list[str]:
    """The brief's checks; without any, whether the image shows the text and, if the profile says
    so, each of its phrases.
    """
    if request.checks:
        return [check.question for check in request.checks]
    text = " ".join(request.words(profile.against).split())
    phrases = [part for part in _BETWEEN.split(text) if part] if profile.phrases else []
    shown = [text, *phrases[:PHRASES]] if len(phrases) > 1 else [text]
    return [f'Does this image show "{each}"?' for each in shown]


def _score(answers: Sequence[float], profile: AskingJudgeProfile) -> Score:
    if not all(map(math.isfinite, answers)):
        return NO_NUMBER
    mean, least = geometric_mean(max(each, LEAST) for each in answers), min(answers)
    chance = least if least < profile.floor else min(mean, 1.0)
    part = ScorePart(judge=profile.name, raw=mean, calibrated=chance, answers=tuple(answers))
    return Score(raw=mean, calibrated=chance, parts=(part,))
