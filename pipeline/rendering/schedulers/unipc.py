"""UniPC of Zhao et al. 2023, https://arxiv.org/abs/2302.04867, of first and second order."""

from typing import Any

import torch
from torch import Tensor

from pipeline.rendering.schedulers.base import (
    UNCHANGED,
    Call,
    Levels,
    Mix,
    Unsupported,
    levels_of,
    refuse,
    skip_and_out,
)


def unipc(scheduler: Any) -> list[Call]:
    """Each call's estimate first corrects the latents that it was given, which the base keeps, and
    then predicts the next ones.
    """
    config, count = scheduler.config, len(scheduler.timesteps)
    refuse(scheduler, thresholding=False, predict_x0=True, solver_p=None, lower_order_final=True)
    if config.solver_order > 2:
        raise Unsupported(f"UniPC of order {config.solver_order}")
    levels, first = levels_of(scheduler), scheduler.begin_index
    calls, order = list[Call](), 0
    for index in range(count):
        corrected = UNCHANGED
        if index > first and index - 1 not in config.disable_corrector:
            corrected = _corrected(scheduler, levels, index, order)
        order = min(config.solver_order, count - index, max(index - first, 0) + 1)
        x, estimates = _predicted(scheduler, levels, index, order)
        after = Mix(*(x * one + other for one, other in zip(corrected, estimates, strict=True)))
        alpha, sigma = float(levels.signals[index]), float(levels.noises[index])
        factors = skip_and_out(config.prediction_type, alpha, sigma)
        timestep = float(scheduler.timesteps[index])
        calls.append(Call(alpha, sigma, timestep, 1.0, *factors, after, corrected))
    return calls


def _predicted(scheduler: Any, levels: Levels, index: int, order: int) -> tuple[float, Mix]:
    """UniP, algorithm 2: the weight of the latents before the call in those after it, and those of
    the estimates.
    """
    x, x0, scale = _change(scheduler, levels, index)
    if order == 1:
        return x, Mix(x0=x0)
    share = scale / 2 / _ratio(levels, index)
    return x, Mix(x0=x0 - share, before=share)


def _corrected(scheduler: Any, levels: Levels, index: int, order: int) -> Mix:
    """UniC, algorithm 1: the latents before the call, once more from the base, now that there is
    an estimate for them.
    """
    base, before, scale = _change(scheduler, levels, index - 1)
    if order == 1:
        return Mix(base=base, before=before - scale / 2, x0=scale / 2)
    ratio = _ratio(levels, index - 1)
    gap = levels.logs[index - 1] - levels.logs[index]
    phi = torch.expm1(gap) / gap - 1
    moments = torch.stack([phi, 2 * (phi / gap - 0.5)]) / (_b(scheduler, gap))
    system = torch.tensor([[1.0, 1.0], [ratio, 1.0]], dtype=torch.float64)
    older, newer = (scale * each for each in torch.linalg.solve(system, moments).tolist())
    return Mix(base=base, before=before - older / ratio - newer, earlier=older / ratio, x0=newer)


def _change(scheduler: Any, levels: Levels, index: int) -> tuple[float, float, float]:
    """The weights of the latents and of the estimate, in first order, from one call to the next,
    and that of the differences of the estimates in the others.
    """
    gap = levels.logs[index] - levels.logs[index + 1]
    signal = levels.signals[index + 1]
    x = float(levels.noises[index + 1] / levels.noises[index])
    return x, float(-signal * torch.expm1(gap)), float(-signal * _b(scheduler, gap))


def _ratio(levels: Levels, index: int) -> float:
    """Distance of the estimate before, in steps like the one after the call; below 0."""
    logs = levels.logs
    return float((logs[index - 1] - logs[index]) / (logs[index + 1] - logs[index]))


def _b(scheduler: Any, gap: Tensor) -> Tensor:
    """B(h) of the paper's section 3.2, in its two forms."""
    return gap if scheduler.config.solver_type == "bh1" else torch.expm1(gap)
