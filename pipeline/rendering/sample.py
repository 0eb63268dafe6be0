"""A candidate while it is rendered: its latents and what its next step needs."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.rendering.families import Conditioning
from pipeline.rendering.forecasts import predicted_calls
from pipeline.rendering.guidance import Branch
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import SamplerTable


@dataclass(frozen=True, eq=False)
class Kept:
    """The part of an image that an inpainted sample keeps: its latents `clean`, the sample's own
    first noise, and a mask that is 1 where it is painted anew; all broadcast to `x`.
    """

    clean: Tensor
    noise: Tensor
    mask: Tensor

    def within(self, x: Tensor, levels: Tensor) -> Tensor:
        """The latents `x`, with the image's where the mask is 0, at a signal and noise."""
        signal, noise = levels.tolist()
        image: Tensor = signal * self.clean + noise * self.noise
        return image + self.mask * (x - image)


@dataclass(eq=False)
class SampleState:
    """One candidate's tensors before the call `call` of the model.

    `prompts` are the branches' texts, with equally many chunks. `x` are the latents, None before
    the sample is begun. `x0` is the latest estimate of the finished ones, `before` the one before
    it, and `base` the latents that the scheduler may go back to; all None before the first call.
    The model predicts in one of `every` calls, and `predictions` are the last two with their calls.
    `spare` is noise that was drawn for a call which did not complete. The engine's thread writes
    these fields; the job's thread reads `steps` and `seconds` between its tasks.
    """

    request: RenderRequest
    seed: int
    sampler_table: SamplerTable
    branches: Sequence[Branch]
    prompts: Sequence[Prompt]
    every: int = 1
    call: int = field(init=False)
    predicted: tuple[bool, ...] = field(init=False)
    """The calls in which the model predicts."""
    x: Tensor | None = None
    x0: Tensor | None = None
    before: Tensor | None = None
    base: Tensor | None = None
    spare: Tensor | None = None
    kept: Kept | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    conditionings: Sequence[Conditioning] = ()
    """Of the branches, in order."""
    predictions: tuple[tuple[int, Tensor], ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        done, control = self.sampler_table.done, self.request.control
        self.call = done.index(self.sampler_table.first)
        settings = [
            (
                tuple(branch.weights[step] for branch in self.branches),
                control is not None and control.active(step, self.steps),
            )
            for step in done[self.call : -1]
        ]
        self.predicted = (*[False] * self.call, *predicted_calls(settings, self.every))

    @property
    def begun(self) -> bool:
        """True once it holds memory on the device."""
        return self.x is not None

    @property
    def step(self) -> int:
        """Number of steps that are complete or left out."""
        return self.sampler_table.done[self.call]

    @property
    def batch_key(self) -> Hashable:
        """Equal for samples that may share a batch: their texts are equally long, too."""
        return self.request.batch_key, self.prompts[0].chunks

    @property
    def steps(self) -> int:
        """Number of steps in its sampler table."""
        return len(self.sampler_table)

    @property
    def active_branches(self) -> list[tuple[Conditioning, float, float]]:
        """The conditionings of the next call, with their weights, and their weights in the
        prediction without guidance.
        """
        branches = [(branch, branch.weights[self.step]) for branch in self.branches]
        total = sum(weight for branch, weight in branches if not branch.unconditional)
        return [
            (text, weight, 0.0 if branch.unconditional else weight / total)
            for text, (branch, weight) in zip(self.conditionings, branches, strict=True)
            if weight
        ]

    @property
    def forecast(self) -> Tensor:
        """The prediction of a call that is left out: the line through the last two, by number."""
        (earlier, before), (later, last) = self.predictions
        return last + (last - before) * ((self.call - later) / (later - earlier))

    @property
    def latents(self) -> Tensor:
        """The latents of a sample whose rendering has begun."""
        assert self.x is not None
        return self.x

    @property
    def finished(self) -> bool:
        """True once all steps are done."""
        return self.step == self.steps

    @property
    def decodable(self) -> Tensor:
        """The latents to decode an image from: the finished ones, or the estimate of them."""
        return self.latents if self.x0 is None or self.finished else self.x0
