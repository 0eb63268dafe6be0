"""Schedulers as tables of coefficients, one row per call of the model, so that the samples of a
batch can be at different steps.

Every scheduler here is linear: all that a sample keeps after a call are weighted sums of what it
kept before it, of the model's output and of fresh noise. The weights are computed from the
timesteps and sigmas of diffusers' own scheduler, by `schedulers`.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import JobError
from pipeline.rendering.schedulers import CALLS, Mix, Unsupported

__all__ = ["MIXED", "NUMBERS", "SamplerTable", "Unsupported", "sampler_table", "shift_of"]

NUMBERS, MIXED = 4, len(Mix._fields)
"""Numbers of a row ahead of its two mixes, and those of a mix."""


@dataclass(frozen=True)
class SamplerTable:
    """A schedule. `rows` is float32 [calls, 4 + 2 · 6]: timestep, c_in, c_skip and c_out of each
    Call, then its mixes for the latents after it and for the base. `levels` [calls + 1, 2] are the
    signal and noise before each call and at the end, and `done` the number of steps that are
    complete there: a scheduler of second order calls the model twice in a step. Rendering begins
    before the step `first`: without an image before the first of all, from noise times `start`.
    """

    rows: Tensor
    levels: Tensor
    done: tuple[int, ...]
    first: int
    start: float
    has_noise: bool

    def __len__(self) -> int:
        return self.done[-1]


def sampler_table(scheduler: Any, steps: int, first: int = 0, **shift: Any) -> SamplerTable:
    """The table of a diffusers scheduler for `steps` steps, of which those before `first` are left
    out; `shift` goes to its `set_timesteps`.

    Raises Unsupported for a scheduler without such a table, and JobError for a number of steps
    that it does not take.
    """
    name = type(scheduler).__name__
    if (calls_of := CALLS.get(name)) is None:
        raise Unsupported(f"the scheduler {name}")
    own = copy.deepcopy(scheduler)
    try:
        own.set_timesteps(**({"num_inference_steps": steps} | shift))
    except ValueError as error:
        reason = str(error).partition(". ")[0]
        raise JobError(f"the model's {name} takes no {steps} steps: {reason}") from error
    except (AssertionError, TypeError) as error:
        raise Unsupported(f"{name} with the timesteps of this model") from error
    count, order = len(own.timesteps), own.order
    if count != order * (steps - 1) + 1:
        raise Unsupported(f"{count} timesteps for {steps} steps")
    if hasattr(own, "set_begin_index"):
        own.set_begin_index(first * order)
    calls = calls_of(own)
    rows = [(*call[2:6], *call.after, *call.base) for call in calls]
    return SamplerTable(
        torch.tensor(rows, dtype=torch.float32),
        torch.tensor([*(call[:2] for call in calls), (1, 0)], dtype=torch.float32),
        (*(index // order for index in range(count)), steps),
        first,
        start=float(getattr(own, "init_noise_sigma", 1.0)),
        has_noise=any(call.after.noise for call in calls),
    )


def shift_of(scheduler: Any, tokens: int) -> float:
    """The shift of flow matching's noise levels (`mu`) for an image of `tokens` tokens: linear
    between the sizes that the model was trained on.

    Esser et al. 2024, section 5.3.2, https://arxiv.org/abs/2403.03206.
    """
    config = scheduler.config
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(low + (tokens - least) * (high - low) / (most - least))
