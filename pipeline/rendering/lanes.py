"""Who is in the batch and who waits: candidates under way, and the lanes that they go in."""

from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor

from pipeline.job import Order, Picture
from pipeline.rendering.families import Conditioning
from pipeline.rendering.trajectory import Trajectory

PATIENCE = 16
"""Turns of every other lane after which a lane goes before fuller ones."""


@dataclass(eq=False)
class Latent:
    """A candidate under way: its latents after `step` steps, and what its steps need.

    `x`, and `x0`, the latest estimate of the finished latents, appear when it is begun. `spare` is
    noise that was drawn for a step which did not come to its end.
    """

    order: Order
    seed: int
    trajectory: Trajectory
    step: int = 0
    x: Tensor | None = None
    x0: Tensor | None = None
    spare: Tensor | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    text: Conditioning = field(default_factory=dict)
    negative: Conditioning | None = None
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """All steps of its trajectory."""
        return len(self.trajectory)

    @property
    def latents(self) -> Tensor:
        """Those of a candidate that has begun."""
        assert self.x is not None
        return self.x

    @property
    def finished(self) -> bool:
        """Whether it has made all its steps."""
        return self.step == self.steps

    @property
    def shown(self) -> Tensor:
        """What a picture of it is decoded from: finished latents, or the estimate of them."""
        return self.latents if self.x0 is None or self.finished else self.x0


@dataclass(eq=False)
class Leg:
    """A candidate on its way to the step `until`, where it is shown."""

    latent: Latent
    until: int
    future: "Future[Picture]" = field(default_factory=Future)

    @property
    def arrived(self) -> bool:
        """Whether it only has to be shown."""
        return self.latent.step >= self.until


@dataclass(eq=False)
class Lane:
    """Candidates that can share a batch: those in it, at most `limit`, and those that wait.
    `decodable` of them fit into a call of the decoder. It is `warm` once a compiled model has met
    its shapes.
    """

    limit: int
    active: list[Leg] = field(default_factory=list)
    waiting: deque[Leg] = field(default_factory=deque)
    waited: int = 0
    warm: bool = False
    decodable: int = field(init=False)

    def __post_init__(self) -> None:
        self.decodable = self.limit

    @property
    def filling(self) -> float:
        """The part of the batch that can be filled now."""
        return min(1.0, (len(self.active) + len(self.waiting)) / self.limit)

    def add(self, leg: Leg) -> None:
        """Let a leg wait; one that has begun holds memory, and goes before those that have not."""
        if leg.latent.step:
            begun = sum(1 for _ in takewhile(lambda other: other.latent.step, self.waiting))
            self.waiting.insert(begun, leg)
        else:
            self.waiting.append(leg)

    def admit(self) -> None:
        """Drop the cancelled, and fill the batch from those that wait."""
        self.active = [leg for leg in self.active if not leg.future.cancelled()]
        while self.waiting and len(self.active) < self.limit:
            if not (leg := self.waiting.popleft()).future.cancelled():
                self.active.append(leg)

    def shrink(self) -> None:
        """Half as many at a time from now on; the others wait, first in line."""
        self.limit, self.warm = max(1, len(self.active) // 2), False
        self.active, back = self.active[: self.limit], self.active[self.limit :]
        self.waiting.extendleft(reversed(back))


def sizes(most: int) -> list[int]:
    """The numbers of rows to round up to: powers of two, and `most`."""
    return [*(2**n for n in range((most - 1).bit_length())), most]


def choose(lanes: Collection[Lane]) -> Lane | None:
    """The lane whose turn it is: the fullest, unless another one has waited for too long."""
    busy = [lane for lane in lanes if lane.filling]
    if not busy:
        return None
    patience = PATIENCE * len(busy)
    chosen = max(busy, key=lambda lane: (lane.waited // patience, lane.filling))
    for lane in busy:
        lane.waited = 0 if lane is chosen else lane.waited + 1
    return chosen
