"""When a run of the soak counts as recovered."""

from itertools import chain

import pytest

from benchmarks.soak import Strike, recovery


def steady(begun: float, rate: float = 10.0) -> list[float]:
    """When jobs end, at a rate, for 20 s."""
    return [begun + number / rate for number in range(int(20 * rate))]


def took(*times: list[float], outage: float = 0.0, in_hand: tuple[str, ...] = ()) -> float:
    """Seconds to recover from a fault that struck at 20, where jobs ended at these times; their
    ids are `run/NUMBER`.
    """
    ended = {f"run/{number}": time for number, time in enumerate(chain(*times))}
    return recovery(ended, Strike("kind", 20.0, 20.0 + outage, "run", frozenset(in_hand)))


@pytest.mark.parametrize("silence", [0.0, 3.0, 40.0])
def test_recovery_is_counted_from_the_faults_end(silence: float) -> None:
    assert took(steady(0.0), steady(22.0 + silence), outage=2.0) == pytest.approx(silence)


@pytest.mark.parametrize("drops", [[21.0, 24.0, 27.0], steady(20.0, rate=7.0)])
def test_less_than_the_rate_of_before_is_no_recovery(drops: list[float]) -> None:
    after = steady(45.0)
    assert took(steady(0.0), drops, after) == pytest.approx(25.0)


def test_what_a_fault_hit_has_to_end_too() -> None:
    assert took(steady(0.0), steady(20.0), [51.0], in_hand=("run/0", "run/400")) == 31.0


def test_a_run_that_has_ended_has_recovered() -> None:
    assert took(steady(0.0)) == 0.0
    assert took(steady(0.0), [24.0]) == 4.0
