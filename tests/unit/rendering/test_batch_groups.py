"""Who gets a place in the batch."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import RenderRequest
from pipeline.rendering.batch_groups import PATIENCE, BatchGroup, StepTask, choose
from pipeline.rendering.sample import SampleState
from pipeline.rendering.sampler import SamplerTable

ORDER: Any = RenderRequest(
    prompt="a", negative="", width=8, height=8, steps=4, guidance=0, seeds=(0,)
)
STEPS = SamplerTable(torch.zeros(4, 16), torch.ones(5, 2), (0, 1, 2, 3, 4), 0, 1.0, has_noise=False)


def task(step: int = 0) -> StepTask:
    sample = SampleState(ORDER, 0, STEPS, (), (), x=torch.zeros(1) if step else None)
    sample.call = step
    return StepTask(sample, until=4)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_no_lane_starves(sizes: list[int]) -> None:
    """However full the others are, each has its turn within PATIENCE turns of every group."""
    groups = [BatchGroup(8) for _ in sizes]
    for group, size in zip(groups, sizes, strict=True):
        for _ in range(size):
            group.add(task())
    turns = [choose(groups) for _ in range(4 * PATIENCE * len(groups) ** 2)]
    for group in groups:
        at = [place for place, chosen in enumerate(turns) if chosen is group]
        gaps = [later - sooner for sooner, later in zip([0, *at], [*at, len(turns)], strict=True)]
        assert max(gaps) <= PATIENCE * len(groups) + len(groups)


def test_the_fullest_lane_goes_first() -> None:
    full, half = BatchGroup(4), BatchGroup(4)
    for _ in range(2):
        half.add(task())
    for _ in range(4):
        full.add(task())
    assert choose([half, full]) is full
    assert choose([]) is None
    assert choose([BatchGroup(4)]) is None


def test_what_has_begun_goes_before_what_has_not() -> None:
    group, fresh, begun = BatchGroup(1), task(), task(step=2)
    group.add(fresh)
    group.add(begun)
    group.admit()
    assert group.active == [begun]
    assert list(group.waiting) == [fresh]


def test_tasks_that_have_begun_keep_their_order_of_arrival() -> None:
    group, first, second, fresh = BatchGroup(2), task(step=2), task(step=1), task()
    for each in (fresh, first, second):
        group.add(each)
    group.admit()
    assert group.active == [first, second]


def test_the_cancelled_take_no_place() -> None:
    group, tasks = BatchGroup(2), [task() for _ in range(4)]
    for each in tasks:
        group.add(each)
    group.admit()
    tasks[0].future.cancel()
    tasks[2].future.cancel()
    group.admit()
    assert group.active == [tasks[1], tasks[3]]


def test_a_lane_that_shrinks_keeps_the_order() -> None:
    group, tasks = BatchGroup(4), [task() for _ in range(5)]
    for each in tasks:
        group.add(each)
    group.admit()
    group.shrink()
    assert group.limit == 2
    assert group.active == tasks[:2]
    assert list(group.waiting) == tasks[2:]
