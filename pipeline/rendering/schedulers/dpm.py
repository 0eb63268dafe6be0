"""DPM-Solver++ of Lu et al. 2022, https://arxiv.org/abs/2211.01095, of first and second order, as
an ordinary and as a stochastic differential equation.
"""

from typing import Any

import torch

from pipeline.rendering.schedulers.base import (
    Call,
    Levels,
    Mix,
    Unsupported,
    levels_of,
    refuse,
    skip_and_out,
)

SHORT = 15
"""Below so many steps `lower_order_final` has an effect."""


def multistep(scheduler: Any) -> list[Call]:
    """Algorithm 2 (2M): the second order from the estimate of the step before."""
    _check(scheduler)
    config, count = scheduler.config, len(scheduler.timesteps)
    last_is_first_order = (
        config.final_sigmas_type == "zero"
        or config.euler_at_final
        or (config.lower_order_final and count < SHORT)
    )
    levels, calls = levels_of(scheduler), []
    for index in range(count):
        final = index == count - 1 and last_is_first_order
        if config.solver_order == 1 or index <= scheduler.begin_index or final:
            after = _first_order(scheduler, levels, index)
        else:
            after, slope = _change(scheduler, levels, index, index)
            # the slope of the estimates, over a step as long as this one
            ratio = (levels.logs[index] - levels.logs[index - 1]) / (
                levels.logs[index + 1] - levels.logs[index]
            )
            share = slope / float(ratio)
            after = after._replace(x0=after.x0 + share, before=-share)
        calls.append(_call(scheduler, levels, index, after))
    return calls


def singlestep(scheduler: Any) -> list[Call]:
    """Algorithm 1 (2S): of two calls the second goes back to where the first began. Each call is a
    step of the schedule.
    """
    _check(scheduler)
    levels, calls = levels_of(scheduler), []
    for index, order in enumerate(scheduler.order_list):
        if order == 1 or index <= scheduler.begin_index:
            after = _first_order(scheduler, levels, index)
        else:
            whole, slope = _change(scheduler, levels, index - 1, index)
            ratio = (levels.logs[index] - levels.logs[index - 1]) / (
                levels.logs[index + 1] - levels.logs[index - 1]
            )
            share = slope / float(ratio)
            after = Mix(base=whole.x, before=whole.x0 - share, x0=share, noise=whole.noise)
        calls.append(_call(scheduler, levels, index, after))
    return calls


def _first_order(scheduler: Any, levels: Levels, index: int) -> Mix:
    return _change(scheduler, levels, index, index)[0]


def _change(scheduler: Any, levels: Levels, start: int, index: int) -> tuple[Mix, float]:
    """The change of first order from the latents before the call `start` to those after the call
    `index`, and the weight of the slope of the estimates in the second order.
    """
    config = scheduler.config
    stochastic = config.algorithm_type == "sde-dpmsolver++"
    gap = levels.logs[index + 1] - levels.logs[start]
    # the stochastic equation goes twice as far, and half of the way back by fresh noise
    way = 2 * gap if stochastic else gap
    signal, noise = levels.signals[index + 1], levels.noises[index + 1]
    x0 = float(-signal * torch.expm1(-way))
    x, fresh = float(noise / levels.noises[start]), 0.0
    if stochastic:
        x *= float(torch.exp(-gap))
        fresh = float(noise * (-torch.expm1(-way)).sqrt())
    heun = config.solver_type == "heun"
    slope = float(signal * (torch.expm1(-way) / way + 1)) if heun else x0 / 2
    return Mix(x=x, x0=x0, noise=fresh), slope


def _check(scheduler: Any) -> None:
    refuse(scheduler, thresholding=False, variance_type=None)
    kind, order = scheduler.config.algorithm_type, scheduler.config.solver_order
    if kind not in ("dpmsolver++", "sde-dpmsolver++") or order > 2:
        raise Unsupported(f"{kind} of order {order}")


def _call(scheduler: Any, levels: Levels, index: int, after: Mix) -> Call:
    alpha, sigma = float(levels.signals[index]), float(levels.noises[index])
    factors = skip_and_out(scheduler.config.prediction_type, alpha, sigma)
    return Call(alpha, sigma, float(scheduler.timesteps[index]), 1.0, *factors, after)
