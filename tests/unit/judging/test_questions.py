"""The judge that asks a vision-language model about an image."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.job import Check, ImageArray, JudgeRequest
from pipeline.judging.asking import QUESTION, questions_of
from pipeline.judging.questions import QuestionsJudge
from pipeline.models import Models
from pipeline.models.files import references
from pipeline.profile import Profile, QuestionsJudgeProfile
from tests.harness import vision_language_models
from tests.harness.jobs import request_of

CHECKS = (
    Check(question="is there a circle ?", kind="object"),
    Check(question="is it red ?", kind="attribute"),
)
IMAGES: list[ImageArray] = list(np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32))
BROKEN: ImageArray = np.full((32, 32, 3), np.nan, np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_language_models.save("llava", tmp_path_factory.mktemp("m") / "vlm").parent


def judge(root: Path, **keys: Any) -> QuestionsJudge:
    return QuestionsJudge(Models(root, "cpu"), QuestionsJudgeProfile(model="vlm", **keys))


def answering(judge: QuestionsJudge, answers: Sequence[float]) -> QuestionsJudge:
    """The judge, whose model gives these answers about any image."""
    judge._model.chances = lambda images, questions: np.float32([answers] * len(images))  # type: ignore[method-assign]  # of one judge
    return judge


def asked_about(text: str) -> JudgeRequest:
    return request_of(text)


def test_the_score_is_the_geometric_mean_of_the_checks_answers(root: Path) -> None:
    request = JudgeRequest("a red circle", "", "", checks=CHECKS)
    own = judge(root)
    scores = own.score([IMAGES[0], BROKEN, IMAGES[1]], request)
    answers = own._model.chances(IMAGES, [QUESTION.format(each.question) for each in CHECKS])
    assert [score.valid for score in scores] == [True, False, True]
    for score, expected in zip((scores[0], scores[2]), answers, strict=True):
        assert score.parts[0].answers == pytest.approx(expected, abs=1e-6)
        assert score.calibrated == pytest.approx(math.prod(expected) ** 0.5, abs=1e-6)
    assert scores[0].calibrated != scores[2].calibrated


def test_one_answer_below_the_floor_decides(root: Path) -> None:
    request = JudgeRequest("", "", "", checks=CHECKS)
    (score,) = answering(judge(root, floor=0.3), [0.9, 0.2]).score(IMAGES[:1], request)
    assert (score.raw, score.calibrated) == pytest.approx((math.sqrt(0.18), 0.2))
    (score,) = answering(judge(root, floor=0.3), [0.9, 0.4]).score(IMAGES[:1], request)
    assert score.calibrated == pytest.approx(0.6)


@pytest.mark.parametrize("answers", [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
def test_the_surest_answers_are_chances_too(root: Path, answers: list[float]) -> None:
    request = JudgeRequest("", "", "", checks=CHECKS)
    (score,) = answering(judge(root), answers).score(IMAGES[:1], request)
    assert score.calibrated == pytest.approx(math.prod(answers), abs=2e-3)


def test_an_answer_that_is_no_number_makes_an_image_invalid(root: Path) -> None:
    (score,) = answering(judge(root), [0.9, math.nan]).score(IMAGES[:1], asked_about("a"))
    assert (score.valid, score.reason) == (False, "the judge's answer is not a number")


def test_a_brief_without_checks_is_asked_about_its_text_and_phrases() -> None:
    request = asked_about("a red circle and a blue square on white, with a frame.")
    whole = f'Does this image show "{request.prompt}"?'
    plain = QuestionsJudgeProfile(model="vlm")
    in_phrases = QuestionsJudgeProfile(model="vlm", phrases=True)
    assert questions_of(request, plain) == [whole]
    assert questions_of(request, in_phrases) == [
        whole,
        'Does this image show "a red circle"?',
        'Does this image show "a blue square on white"?',
        'Does this image show "a frame"?',
    ]
    assert questions_of(asked_about("a circle"), in_phrases) == ['Does this image show "a circle"?']


def test_its_model_is_checked_hashed_and_recorded() -> None:
    profile = Profile.load("shapes")
    both = [*profile.judge, QuestionsJudgeProfile(model="vlm")]
    named = references(profile.model_copy(update={"judge": tuple(both)}))
    assert named["vision_language::questions"] == "vlm"
