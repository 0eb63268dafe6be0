"""The panel: several judges' chances as one."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NothingToJudge
from pipeline.job import ImageArray, JudgeRequest, Score, ScorePart
from pipeline.judging.panel import CERTAIN, Panel
from pipeline.ports import Judge
from pipeline.profile import JudgeProfile, PanelProfile
from pipeline.telemetry import metered
from tests.harness.jobs import request_of

ASKED = request_of("a red circle")
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=4)
INVALID = Score(raw=0, calibrated=0, valid=False, reason="blank")


class Scripted:
    """A judge with a score for each image, which is its index, or nothing to judge by."""

    def __init__(self, *scores: Score | float) -> None:
        self.scores = [
            each if isinstance(each, Score) else Score(raw=10 * each, calibrated=each)
            for each in scores
        ]
        self.saw = list[list[int]]()

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        if not self.scores:
            raise NothingToJudge("no words")
        self.saw.append([int(image[0, 0, 0]) for image in images])
        return [self.scores[index] for index in self.saw[-1]]


def images(count: int) -> list[ImageArray]:
    return [np.full((8, 8, 3), index, np.float32) for index in range(count)]


def panel(*judges: Judge, offset: float = 0.0, weights: Sequence[float | None] = ()) -> Panel:
    profiles = [
        JudgeProfile(kind="any", name=f"judge{index}", weight=weight)
        for index, weight in enumerate(weights or [None] * len(judges))
    ]
    return Panel(list(zip(profiles, judges, strict=True)), PanelProfile(offset=offset))


def held(chance: float) -> float:
    return min(max(chance, CERTAIN), 1 - CERTAIN)


@given(CHANCES)
def test_one_judge_is_left_as_it_is(chances: list[float]) -> None:
    judge = Scripted(*chances)
    for score, own in zip(
        panel(judge).score(images(len(chances)), ASKED), judge.scores, strict=True
    ):
        part = ScorePart(judge="judge0", raw=own.raw, calibrated=own.calibrated)
        assert score == own.model_copy(update={"parts": (part,)})


@given(CHANCES)
def test_judges_of_one_mind_are_no_surer_together(chances: list[float]) -> None:
    (score,) = panel(*(Scripted(chances[0]) for _ in chances)).score(images(1), ASKED)
    if len(chances) > 1:
        assert score.calibrated == pytest.approx(held(chances[0]))


@given(CHANCES, st.lists(st.floats(0, 3), min_size=4, max_size=4), st.floats(-5, 5))
def test_the_odds_are_the_product_of_the_judges_odds(
    chances: list[float], weights: list[float], offset: float
) -> None:
    chances.append(0.5)
    weights = [*weights[: len(chances) - 1], 1.0]
    judges = [Scripted(chance) for chance in chances]
    (score,) = panel(*judges, weights=weights, offset=offset).score(images(1), ASKED)
    odds = math.exp(offset) * math.prod(
        (held(chance) / (1 - held(chance))) ** weight
        for chance, weight in zip(chances, weights, strict=True)
    )
    assert score.calibrated == pytest.approx(odds / (1 + odds))
    assert score.raw == pytest.approx(math.log(odds), abs=1e-9)
    assert [part.calibrated for part in score.parts] == chances


def test_a_single_judges_weight_and_offset_count() -> None:
    (score,) = panel(Scripted(0.9), weights=[0.5], offset=1.0).score(images(1), ASKED)
    assert score.calibrated == pytest.approx(1 / (1 + math.exp(-1 - 0.5 * math.log(9))))
    assert score.raw == 9


def test_an_image_that_one_finds_invalid_is_invalid() -> None:
    scores = panel(Scripted(0.9, 0.8), Scripted(INVALID, 0.8)).score(images(2), ASKED)
    assert [(score.valid, score.reason) for score in scores] == [(False, "blank"), (True, "")]
    assert (scores[0].raw, scores[0].calibrated) == (0, 0)
    assert [part.judge for part in scores[0].parts] == ["judge0"]


def test_a_judge_with_nothing_to_compare_is_left_out_and_named() -> None:
    with metered() as meter:
        (score,) = panel(Scripted(), Scripted(0.9), Scripted(0.6)).score(images(1), ASKED)
    (without,) = panel(Scripted(0.9), Scripted(0.6)).score(images(1), ASKED)
    assert score.calibrated == pytest.approx(without.calibrated)
    assert [part.judge for part in score.parts] == ["judge1", "judge2"]
    assert meter.notices == ["the judge 'judge0' has no part in the scores: no words"]
    with pytest.raises(NothingToJudge, match="judge0: no words; judge1: no words"):
        panel(Scripted(), Scripted()).score(images(1), ASKED)


def test_a_judges_own_parts_are_kept() -> None:
    part = ScorePart(judge="judge1", raw=3, calibrated=0.7, answers=(0.7, 0.9))
    asking = Scripted(Score(raw=3, calibrated=0.7, parts=(part,)))
    (score,) = panel(Scripted(0.5), asking).score(images(1), ASKED)
    assert score.parts[1] == part
