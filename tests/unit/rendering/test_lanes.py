"""Who gets a place in the batch."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Order
from pipeline.rendering.lanes import PATIENCE, Lane, Latent, Leg, choose
from pipeline.rendering.trajectory import Trajectory

ORDER: Any = Order(prompt="a", negative="", width=8, height=8, steps=4, guidance=0, seeds=(0,))
STEPS = Trajectory(torch.zeros(4, 8), 1.0, has_history=False, has_noise=False)


def leg(step: int = 0) -> Leg:
    return Leg(Latent(ORDER, 0, STEPS, step=step), until=4)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_no_lane_starves(sizes: list[int]) -> None:
    """However full the others are, each has its turn within PATIENCE turns of every lane."""
    lanes = [Lane(8) for _ in sizes]
    for lane, size in zip(lanes, sizes, strict=True):
        for _ in range(size):
            lane.add(leg())
    turns = [choose(lanes) for _ in range(4 * PATIENCE * len(lanes) ** 2)]
    for lane in lanes:
        at = [turn for turn, chosen in enumerate(turns) if chosen is lane]
        gaps = [later - sooner for sooner, later in zip([0, *at], [*at, len(turns)], strict=True)]
        assert max(gaps) <= PATIENCE * len(lanes) + len(lanes)


def test_the_fullest_lane_goes_first() -> None:
    full, half = Lane(4), Lane(4)
    for _ in range(2):
        half.add(leg())
    for _ in range(4):
        full.add(leg())
    assert choose([half, full]) is full
    assert choose([]) is None
    assert choose([Lane(4)]) is None


def test_what_has_begun_goes_before_what_has_not() -> None:
    lane, fresh, begun = Lane(1), leg(), leg(step=2)
    lane.add(fresh)
    lane.add(begun)
    lane.admit()
    assert lane.active == [begun]
    assert list(lane.waiting) == [fresh]


def test_those_that_have_begun_go_in_the_order_in_which_they_came() -> None:
    lane, first, second, fresh = Lane(2), leg(step=2), leg(step=1), leg()
    for each in (fresh, first, second):
        lane.add(each)
    lane.admit()
    assert lane.active == [first, second]


def test_the_cancelled_take_no_place() -> None:
    lane, legs = Lane(2), [leg() for _ in range(4)]
    for each in legs:
        lane.add(each)
    lane.admit()
    legs[0].future.cancel()
    legs[2].future.cancel()
    lane.admit()
    assert lane.active == [legs[1], legs[3]]


def test_a_lane_that_shrinks_keeps_the_order() -> None:
    lane, legs = Lane(4), [leg() for _ in range(5)]
    for each in legs:
        lane.add(each)
    lane.admit()
    lane.shrink()
    assert lane.limit == 2
    assert lane.active == legs[:2]
    assert list(lane.waiting) == legs[2:]
