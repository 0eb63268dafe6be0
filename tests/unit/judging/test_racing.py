"""What a race would have cost and won, on contests that are known to the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Rung, Score
from pipeline.judging.racing import Finished, agreement, propose, trial

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


@given(contests, st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_what_is_proposed_keeps_to_the_regret_and_nothing_allowed_is_cheaper(
    held: list[Finished], regret: float
) -> None:
    found = propose(held, regret)
    assert found.regret <= regret
    for rungs in ([], [HALF], [LATE], [HALF, LATE]):
        other = trial(rungs, held)
        assert found.cost <= other.cost or other.regret > regret


def test_previews_that_mislead_are_not_used() -> None:
    assert propose([MISLEADING], 0.1).rungs == ()
    assert propose([FAITHFUL], 0.1).rungs == (Rung(at=0.5, keep=0.25),)
