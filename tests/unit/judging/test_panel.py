"""The panel: several judges' chances as one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NothingToJudge
from pipeline.job import ImageArray, JudgeRequest, Score, ScorePart
from pipeline.judging.contest import passes, winner
from pipeline.judging.panel import CERTAIN, Panel
from pipeline.ports import Judge
from pipeline.profile import JudgeProfile, PanelProfile
from pipeline.telemetry import metered
from tests.harness.jobs import make_job, request_of

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


def panel(
    *judges: Judge,
    offset: float = 0.0,
    weights: Sequence[float | None] = (),
    finalists: Sequence[int | None] = (),
) -> Panel:
    nothing = [None] * len(judges)
    profiles = [
        JudgeProfile(kind="any", name=f"judge{index}", weight=weight, finalists=limit)
        for index, (weight, limit) in enumerate(
            zip(weights or nothing, finalists or nothing, strict=True)
        )
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


OPINION = st.one_of(st.floats(0, 1), st.just(INVALID))
RIVALS = st.lists(st.tuples(st.floats(0.01, 0.99), OPINION, OPINION), min_size=1, max_size=8)
WEIGHTS = st.tuples(*[st.floats(0.05, 2)] * 3)


def order_by(scores: Sequence[Score]) -> list[int]:
    """The valid images, best first."""
    valid = [index for index, score in enumerate(scores) if score.valid]
    return sorted(valid, key=lambda index: -scores[index].raw)


@given(RIVALS, WEIGHTS, st.integers(1, 8))
def test_of_the_best_few_the_winner_is_that_of_judges_who_see_all(
    rivals: list[tuple[float, Score | float, Score | float]],
    weights: tuple[float, float, float],
    limit: int,
) -> None:
    """Leaving out what cannot overtake changes no winner."""
    cheap, dear, _ = zip(*rivals, strict=True)
    shown, judge = images(len(rivals)), Scripted(*dear)
    scores = panel(Scripted(*cheap), judge, weights=weights[:2], finalists=[None, limit]).score(
        shown, ASKED
    )
    before = panel(Scripted(*cheap), Scripted(*cheap), weights=weights[:2]).score(shown, ASKED)
    everything = panel(Scripted(*cheap), Scripted(*dear), weights=weights[:2]).score(shown, ASKED)
    ranked = order_by(before)
    best = [index for index in ranked[:limit] if everything[index].valid]
    while not best and ranked[limit:]:
        ranked = ranked[limit:]
        best = [index for index in ranked[:limit] if everything[index].valid]
    wanted = max(best, key=lambda index: everything[index].raw, default=None)
    found = winner(scores)
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        assert scores[found].final
        assert scores[found] == everything[found]
        assert scores[found].raw == everything[wanted].raw
    saw = [index for call in judge.saw for index in call]
    assert len(saw) == len({*saw})
    assert {index for index, score in enumerate(scores) if score.valid and score.final} <= {*saw}
    if best:
        assert all(index in ranked[:limit] for index in saw if everything[index].valid)


@given(RIVALS, WEIGHTS, st.integers(1, 8), st.integers(1, 8))
def test_two_finalists_judges_see_no_more_than_their_number_and_one_that_both_saw_wins(
    rivals: list[tuple[float, Score | float, Score | float]],
    weights: tuple[float, float, float],
    more: int,
    fewer: int,
) -> None:
    cheap, dear, dearest = zip(*rivals, strict=True)
    judges = Scripted(*dear), Scripted(*dearest)
    scores = panel(
        judges[0], Scripted(*cheap), judges[1], weights=weights, finalists=[more, None, fewer]
    ).score(images(len(rivals)), ASKED)
    for judge, limit in zip(judges, (more, fewer), strict=True):
        calls = [[judge.scores[index].valid for index in call] for call in judge.saw]
        assert sum(map(len, calls)) <= limit or not any(map(any, calls[:-1]))
    job, found = make_job(threshold=0), winner(scores)
    seen = {0, 1, 2, 3, 4, 5, 6, 7}.intersection(*(chain(*judge.saw) for judge in judges))
    valid = {index for index, score in enumerate(scores) if score.valid}
    assert {index for index in valid if scores[index].final} == valid & seen
    assert {index for index, score in enumerate(scores) if passes(job, score)} == valid & seen
    assert found is None or found in seen or not valid & seen


def test_previews_and_the_worse_ones_are_kept_from_a_finalists_judge() -> None:
    cheap, dear = Scripted(0.3, 0.9, 0.6, 0.5), Scripted(0.9, 0.7, 0.8, 0.9)
    judges = panel(cheap, dear, finalists=[None, 2])
    previews = judges.score(images(4), replace(ASKED, previews=True))
    assert (dear.saw, [score.final for score in previews]) == ([], [False] * 4)
    assert [len(score.parts) for score in previews] == [1] * 4
    scores = judges.score(images(4), ASKED)
    assert dear.saw == [[1], [2]]
    assert [score.final for score in scores] == [False, True, True, False]
    assert scores[3].calibrated == pytest.approx(0.5)


def test_one_that_cannot_overtake_the_best_is_not_seen() -> None:
    cheap, dear = Scripted(0.9999, 0.01, 0.9995), Scripted(0.9, 0.9, 0.9)
    panel(cheap, dear, weights=[1, 0.3], finalists=[None, 3]).score(images(3), ASKED)
    assert dear.saw == [[0], [2]]


def test_while_none_of_the_best_is_valid_the_next_are_seen() -> None:
    dear = Scripted(INVALID, INVALID, INVALID, 0.2, 0.9)
    cheap = Scripted(0.9, 0.8, 0.7, 0.6, 0.5)
    scores = panel(cheap, dear, finalists=[None, 2]).score(images(5), ASKED)
    assert dear.saw == [[0], [1], [2, 3]]
    assert winner(scores) == 3


def test_where_no_other_has_a_say_a_finalists_judge_sees_all() -> None:
    dear = Scripted(0.2, 0.9)
    judges = panel(Scripted(), dear, finalists=[None, 1])
    for request in (ASKED, replace(ASKED, previews=True)):
        scores = judges.score(images(2), request)
        assert (winner(scores), dear.saw.pop()) == (1, [0, 1])
        assert all(score.final for score in scores)


def test_a_silent_finalists_judge_leaves_all_as_they_were() -> None:
    scores = panel(Scripted(0.2, 0.9), Scripted(), finalists=[None, 1]).score(images(2), ASKED)
    assert [score.final for score in scores] == [True, True]
    assert [score.calibrated for score in scores] == pytest.approx([0.2, 0.9])


def test_judges_without_weight_are_recorded_and_decide_nothing() -> None:
    both = panel(Scripted(0.01, 0.99), Scripted(0.9, 0.1), weights=[0.0, 1.0])
    scores = both.score(images(2), ASKED)
    assert [score.calibrated for score in scores] == pytest.approx([0.9, 0.1])
    assert [score.parts[0].calibrated for score in scores] == [0.01, 0.99]
    with pytest.raises(NothingToJudge, match="no words"):
        panel(Scripted(0.01, 0.99), Scripted(), weights=[0.0, 1.0]).score(images(2), ASKED)


def test_where_only_judges_without_weight_saw_all_the_finalists_judge_does_too() -> None:
    dear = Scripted(0.1, 0.2, 0.3, 0.9)
    silent, light = Scripted(), Scripted(0.9, 0.8, 0.7, 0.6)
    judging = panel(light, silent, dear, weights=[0.0, 1.0, 1.0], finalists=[None, None, 2])
    scores = judging.score(images(4), ASKED)
    assert dear.saw == [[0, 1, 2, 3]]
    assert winner(list(scores)) == 3
