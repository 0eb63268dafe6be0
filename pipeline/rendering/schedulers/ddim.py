"""Schedulers over the training's own timesteps: DDIM and the samplers of consistency models."""

from typing import Any

import torch

from pipeline.models.schedulers import eta_of
from pipeline.rendering.schedulers.base import Call, Mix, refuse, skip_and_out


def ddim(scheduler: Any) -> list[Call]:
    """Equation 12 of Song et al. 2020, https://arxiv.org/abs/2010.02502."""
    refuse(scheduler, clip_sample=False, thresholding=False)
    stride = scheduler.config.num_train_timesteps // len(scheduler.timesteps)
    eta = eta_of(scheduler)
    calls = []
    for timestep in map(int, scheduler.timesteps):
        kept = float(scheduler.alphas_cumprod[timestep])
        before = timestep - stride
        next_kept = float(
            scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
        )
        fresh = eta * ((1 - next_kept) / (1 - kept) * (1 - kept / next_kept)) ** 0.5
        after = _to(kept, next_kept, (1 - next_kept - fresh**2) ** 0.5)._replace(noise=fresh)
        calls.append(_call(scheduler, timestep, after))
    return calls


def lcm(scheduler: Any) -> list[Call]:
    """Algorithm 3 of Luo et al. 2023, https://arxiv.org/abs/2310.04378: an estimate, and fresh
    noise in place of what is left.
    """
    refuse(scheduler, clip_sample=False, thresholding=False)
    timesteps, calls = list(map(int, scheduler.timesteps)), []
    for index, timestep in enumerate(timesteps):
        after = Mix(x0=1.0)
        if index + 1 < len(timesteps):
            next_kept = float(scheduler.alphas_cumprod[timesteps[index + 1]])
            after = Mix(x0=next_kept**0.5, noise=(1 - next_kept) ** 0.5)
        # the boundary condition holds on to x near the end
        hold, take = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        call = _call(scheduler, timestep, after)
        c_skip, c_out = hold + take * call.c_skip, take * call.c_out
        calls.append(call._replace(c_skip=c_skip, c_out=c_out))
    return calls


def tcd(scheduler: Any) -> list[Call]:
    """Algorithm 4 of Zheng et al. 2024, https://arxiv.org/abs/2402.19159: below the next timestep,
    as far as `eta` says, and back up with fresh noise.
    """
    timesteps, eta = list(map(int, scheduler.timesteps)), eta_of(scheduler)
    calls = []
    for timestep, following in zip(timesteps, [*timesteps[1:], 0], strict=True):
        # as diffusers rounds it
        lower = int(torch.floor((1 - eta) * torch.tensor(following)))
        kept, next_kept, low_kept = (
            float(scheduler.alphas_cumprod[each]) for each in (timestep, following, lower)
        )
        up = next_kept / low_kept if eta and following else 1.0
        low = _to(kept, low_kept, (1 - low_kept) ** 0.5)
        after = Mix(x=up**0.5 * low.x, x0=up**0.5 * low.x0, noise=(1 - up) ** 0.5)
        calls.append(_call(scheduler, timestep, after))
    return calls


def _to(kept: float, next_kept: float, noise: float) -> Mix:
    """From x = √kept·x0 + √(1 - kept)·ε to √next_kept·x0 + noise·ε."""
    ratio = noise / (1 - kept) ** 0.5
    return Mix(x=ratio, x0=next_kept**0.5 - ratio * kept**0.5)


def _call(scheduler: Any, timestep: int, after: Mix) -> Call:
    kept = float(scheduler.alphas_cumprod[timestep])
    alpha, sigma = kept**0.5, (1 - kept) ** 0.5
    factors = skip_and_out(scheduler.config.prediction_type, alpha, sigma)
    return Call(alpha, sigma, timestep, 1.0, *factors, after)
