"""Scheduling of batches: grouping, admission and fairness, in plain Python without torch."""

from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from pipeline.job import ImageArray

if TYPE_CHECKING:
    from pipeline.rendering.sample import SampleState

PATIENCE = 16
"""A group that was passed over so many times per busy group goes first, however full others are."""


@dataclass(eq=False)
class StepTask:
    """Take a sample to the step `until`, and decode an image of it there."""

    sample: "SampleState"
    until: int
    future: "Future[ImageArray]" = field(default_factory=Future)

    @property
    def reached(self) -> bool:
        """True once only the decoding is left."""
        return self.sample.step >= self.until


@dataclass(eq=False)
class BatchGroup:
    """Tasks whose samples can share a batch: at most `limit` active ones, and those that wait.

    `decodable` samples fit into one call of the decoder. A compiled model has met batches of up to
    `warm` rows.
    """

    limit: int
    active: list[StepTask] = field(default_factory=list)
    waiting: deque[StepTask] = field(default_factory=deque)
    waited: int = 0
    warm: int = 0
    decodable: int = field(init=False)

    def __post_init__(self) -> None:
        self.decodable = self.limit

    @property
    def filling(self) -> float:
        """Fraction of the batch that can be filled now."""
        return min(1.0, (len(self.active) + len(self.waiting)) / self.limit)

    def add(self, task: StepTask) -> None:
        """Queue a task; begun samples hold memory, so they go before those that have not begun."""
        if task.sample.begun:
            begun = sum(1 for _ in takewhile(lambda other: other.sample.begun, self.waiting))
            self.waiting.insert(begun, task)
        else:
            self.waiting.append(task)

    def admit(self) -> None:
        """Drop cancelled tasks, and fill the batch from the queue."""
        self.active = [task for task in self.active if not task.future.cancelled()]
        while self.waiting and len(self.active) < self.limit:
            if not (task := self.waiting.popleft()).future.cancelled():
                self.active.append(task)

    def shrink(self) -> None:
        """Halve the limit for good; tasks that no longer fit go to the head of the queue."""
        self.limit = max(1, len(self.active) // 2)
        self.active, back = self.active[: self.limit], self.active[self.limit :]
        self.waiting.extendleft(reversed(back))


def sizes(most: int) -> list[int]:
    """Batch sizes to round up to: powers of two, and `most`."""
    return [*(2**n for n in range((most - 1).bit_length())), most]


def choose(groups: Collection[BatchGroup]) -> BatchGroup | None:
    """The next group to step: the fullest one, unless another has waited too long."""
    busy = [group for group in groups if group.filling]
    if not busy:
        return None
    patience = PATIENCE * len(busy)
    chosen = max(busy, key=lambda group: (group.waited // patience, group.filling))
    for group in busy:
        group.waited = 0 if group is chosen else group.waited + 1
    return chosen
