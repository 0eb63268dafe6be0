"""Every judge keeps the port's promises, with the shipped model."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.job import ImageArray
from pipeline.judging.clip import ClipJudge
from pipeline.ports import Judge
from pipeline.profile import Profile
from tests.harness import small_models
from tests.harness.jobs import request_of

TEXT = "a red circle on a white background"
ASKED = request_of(TEXT)


@pytest.fixture(scope="module", params=["clip"])
def judge(models_root: Path) -> Judge:
    models = small_models.shipped(models_root)
    judge = Profile.load("shapes").judge[0]
    return ClipJudge(models, judge.model_copy(update={"slope": 20.0, "offset": -7.0, "batch": 4}))


def disc(colour: tuple[float, float, float]) -> ImageArray:
    """A disc on white, 64×64."""
    rows, columns = np.mgrid[:64, :64]
    inside = (rows - 32) ** 2 + (columns - 32) ** 2 < 16**2
    image: ImageArray = np.where(inside[..., None], np.float32(colour), np.float32(0.98))
    return image.astype(np.float32)


RED, BLUE, GREEN = disc((0.84, 0.16, 0.18)), disc((0.16, 0.31, 0.84)), disc((0.16, 0.59, 0.25))
BLACK, BROKEN = np.zeros((64, 64, 3), np.float32), np.full((64, 64, 3), np.nan, np.float32)


def raws(judge: Judge, images: Sequence[ImageArray], text: str) -> list[float]:
    return [score.raw for score in judge.score(images, request_of(text))]


def test_one_score_per_image_in_order_and_higher_is_better(judge: Judge) -> None:
    assert int(np.argmax(raws(judge, [BLUE, RED, GREEN], TEXT))) == 1
    assert int(np.argmax(raws(judge, [BLUE, RED, GREEN], TEXT.replace("red", "green")))) == 2
    assert raws(judge, [], TEXT) == []


def test_an_invalid_image_scores_nothing_and_says_why(judge: Judge) -> None:
    scores = judge.score([BLACK, RED, BROKEN], ASKED)
    assert [score.valid for score in scores] == [False, True, False]
    for score in (scores[0], scores[2]):
        assert (score.raw, score.calibrated) == (0, 0)
        assert score.reason
    assert scores[1] == judge.score([RED], ASKED)[0]


def test_invalid_images_alone_are_no_error(judge: Judge) -> None:
    assert [score.valid for score in judge.score([BROKEN, BLACK], ASKED)] == [False, False]


@pytest.mark.parametrize("text", ["", "?", TEXT, (TEXT + ". ") * 40, "x" * 500, "赤い丸 🔴"])
def test_any_text_gets_a_number(judge: Judge, text: str) -> None:
    (score,) = judge.score([RED], request_of(text))
    assert math.isfinite(score.raw)
    assert -1 <= score.raw <= 1
    assert 0 <= score.calibrated <= 1
    assert score.valid


def test_a_score_is_the_same_in_any_company(judge: Judge) -> None:
    tasks = [
        ([RED, BLUE, GREEN, RED, BLUE], TEXT),
        ([BLUE], "a blue ring"),
        ([GREEN, BLACK], TEXT),
    ]
    alone = [raws(judge, *task) for task in tasks * 4]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda task: raws(judge, *task), tasks * 4))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
