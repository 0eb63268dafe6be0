"""What a race would have cost and won, on contests that are known to the end."""

from collections.abc import Sequence
from itertools import combinations
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Rung, Score
from pipeline.judging.racing import (
    Finished,
    agreement,
    drafted,
    enough,
    preview_price,
    propose,
    propose_drafts,
    regret_of,
    trial,
)

HALF, LATE = Rung(at=0.5, keep=0.5), Rung(at=0.8, keep=0.5)


def scores(*values: float) -> list[Score]:
    return [Score(raw=value, calibrated=value) for value in values]


FAITHFUL = Finished({0.5: scores(0.1, 0.2, 0.3, 0.4)}, scores(0.2, 0.4, 0.6, 0.8))
MISLEADING = Finished({0.5: scores(0.4, 0.3, 0.2, 0.1)}, scores(0.2, 0.4, 0.6, 0.8))
contests = st.lists(
    st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=4, max_size=4).map(
        lambda rows: Finished(
            {0.5: scores(*(r[0] for r in rows)), 0.8: scores(*(r[1] for r in rows))},
            scores(*(r[2] for r in rows)),
        )
    ),
    min_size=1,
    max_size=5,
)


def test_a_race_costs_what_is_run_and_misses_what_it_drops() -> None:
    good, bad = trial([HALF], [FAITHFUL]), trial([HALF], [MISLEADING])
    assert good.cost == bad.cost == 0.75
    assert good.regret == pytest.approx(0)
    assert bad.regret == pytest.approx(0.5)
    assert trial([HALF], [FAITHFUL, MISLEADING]).regret == pytest.approx(0.25)
    assert trial([], [MISLEADING]).cost == 1


def test_two_checkpoints_halve_twice() -> None:
    contest = Finished(FAITHFUL.previews | {0.8: scores(4e-1, 3e-1, 2e-1, 1e-1)}, FAITHFUL.finals)
    found = trial([HALF, LATE], [contest])
    assert found.cost == pytest.approx((4 * 0.5 + 2 * 0.3 + 1 * 0.2) / 4)
    assert found.regret == pytest.approx(1 - 0.6 / 0.8)


def test_previews_agree_with_the_ends_or_not() -> None:
    assert agreement(0.5, [FAITHFUL]) == pytest.approx(1)
    assert agreement(0.5, [MISLEADING]) == pytest.approx(-1)
    assert agreement(0.5, [FAITHFUL, MISLEADING]) == pytest.approx(0)
    assert agreement(0.5, [Finished({0.5: scores(1, 1, 1, 1)}, FAITHFUL.finals)]) == 0


@given(contests, st.sampled_from([0.0, 0.05, 0.3, 1.0]), st.sampled_from([0.0, 0.03, 0.4]))
def test_what_is_proposed_keeps_to_the_regret_and_nothing_allowed_is_cheaper(
    held: list[Finished], regret: float, price: float
) -> None:
    found = propose(held, regret, price)
    assert found.regret <= regret
    assert not found.loses
    for rungs in ([], [HALF], [LATE], [HALF, LATE]):
        other = trial(rungs, held, price)
        halves = [trial(rungs, half, price) for half in (held[::2], held[1::2]) if half]
        loses = any(each.loses for each in (other, *halves))
        assert found.cost <= other.cost or other.regret > regret or loses


@given(contests, st.integers(1, 4))
def test_fewer_candidates_win_what_all_their_choices_win_on_average(
    held: list[Finished], count: int
) -> None:
    won = [
        max(each.calibrated for each in chosen)
        for contest in held
        for chosen in combinations(contest.finals, count)
    ]
    best = fmean(max(each.calibrated for each in contest.finals) for contest in held)
    expected = 1 - fmean(won) / best if best else 0.0
    assert regret_of(count, held) == pytest.approx(expected, abs=1e-9)
    if count < 4:
        both = (regret_of(count, held), regret_of(count + 1, held))
        assert regret_of(count + 0.25, held) == pytest.approx(0.75 * both[0] + 0.25 * both[1])
        assert both[1] <= both[0] + 1e-12


def test_a_race_that_wins_no_more_than_fewer_candidates_loses() -> None:
    assert trial([HALF], [FAITHFUL]).loses is False
    assert trial([HALF], [MISLEADING]).loses
    assert trial([], [MISLEADING]).loses is False
    constant = Finished({0.5: scores(0.1, 0.2, 0.3, 0.4)}, scores(0.5, 0.5, 0.5, 0.5))
    assert trial([HALF], [constant]).loses, "it is no better, and one candidate would do"
    assert enough([constant], 0.0) == 1
    assert enough([FAITHFUL], 0.0) == 4


def test_the_price_of_an_image_is_what_decoding_and_judging_it_take() -> None:
    steps, decoded, judged = 10.0, 0.5, 0.2
    found = preview_price(
        plain=steps + decoded, watched=steps + 10 * decoded, judged=10 * judged, previews=9
    )
    assert found == pytest.approx((decoded + judged) / steps)
    assert preview_price(plain=1.0, watched=0.9, judged=0.0, previews=9) == 0, "noise"


def test_previews_have_their_price() -> None:
    free, dear = trial([HALF], [FAITHFUL]), trial([HALF], [FAITHFUL], 0.5)
    assert dear.cost == pytest.approx((4 * 0.5 + 4 * 0.5 + 2 * 0.5 + 2 * 0.5) / (4 * 1.5))
    assert free.cost < dear.cost
    assert free.fewer > dear.fewer
    # previews as dear as renders pay for all candidates
    assert trial([HALF], [FAITHFUL], 10.0).loses


def test_a_race_that_wins_on_one_half_alone_is_not_proposed() -> None:
    worth = scores(0.9, 0.91, 0.92, 0.93)
    flat = Finished(FAITHFUL.previews, worth)
    upside_down = Finished(MISLEADING.previews, worth)
    held = [FAITHFUL, upside_down, FAITHFUL, upside_down]
    assert not trial([HALF], held).loses
    assert propose(held, 0.1).rungs == ()
    assert propose([FAITHFUL, flat, FAITHFUL, flat], 0.1).rungs


def test_previews_that_mislead_are_not_used() -> None:
    assert propose([MISLEADING], 0.1).rungs == ()
    assert propose([FAITHFUL], 0.1).rungs == (Rung(at=0.5, keep=0.25),)


def test_drafts_cost_their_price_and_miss_what_they_rank_low() -> None:
    good, bad = drafted(1, [FAITHFUL], 0.3), drafted(2, [MISLEADING], 0.3)
    assert (good.cost, bad.cost) == pytest.approx((0.3 + 1 / 4, 0.3 + 2 / 4))
    assert good.regret == pytest.approx(0)
    assert bad.regret == pytest.approx(1 - 0.4 / 0.8)
    assert (good.loses, bad.loses) == (False, True)
    assert good.fewer == pytest.approx(regret_of(4 * (0.3 + 1 / 4), [FAITHFUL]))
    assert drafted(3, [FAITHFUL], 0.3).loses, "it costs more than all candidates"


def test_the_cheapest_number_of_survivors_that_pays_is_proposed() -> None:
    second = Finished({0.5: scores(0.1, 0.2, 0.4, 0.3)}, FAITHFUL.finals)
    held = [FAITHFUL, FAITHFUL, second, second]
    assert drafted(1, held, 0.2).regret == pytest.approx(0.125)
    assert propose_drafts(held, 0.0, 0.2).survivors == 2
    assert propose_drafts(held, 0.2, 0.2).survivors == 1
    assert propose_drafts([MISLEADING], 1.0, 0.2).survivors == 0
    assert propose_drafts([FAITHFUL], 1.0, 0.8).survivors == 0, "drafts as dear as renders"


@given(contests, st.randoms(), st.integers(1, 3))
def test_the_order_of_candidates_changes_no_result_of_drafts(
    held: list[Finished], random: Random, survivors: int
) -> None:
    def shuffled(contest: Finished, order: Sequence[int]) -> Finished:
        drafts = [contest.previews[0.5][at] for at in order]
        return Finished({0.5: drafts}, [contest.finals[at] for at in order])

    # equal drafts go on by their index
    apart = [each for each in held if len({score.raw for score in each.previews[0.5]}) == 4]
    if not apart:
        return
    same = [shuffled(each, range(4)) for each in apart]
    other = [shuffled(each, random.sample(range(4), 4)) for each in apart]
    one, two = drafted(survivors, same, 0.3), drafted(survivors, other, 0.3)
    assert (one.regret, one.fewer) == pytest.approx((two.regret, two.fewer), abs=1e-12)
