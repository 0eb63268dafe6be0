"""Euler's and Heun's methods on noise levels, with and without fresh noise, and flow matching."""

from typing import Any

from pipeline.rendering.schedulers.base import Call, Mix, pair, refuse, skip_and_out


def euler(scheduler: Any) -> list[Call]:
    """Algorithm 2 without churn of Karras et al. 2022, https://arxiv.org/abs/2206.00364."""
    refuse(scheduler, timestep_type="discrete")
    calls = []
    for index in range(len(scheduler.timesteps)):
        sigma, following = pair(scheduler.sigmas, index)
        calls.append(_call(scheduler, index, _towards(following / sigma)))
    return calls


def euler_ancestral(scheduler: Any) -> list[Call]:
    """Steps below the next sigma, with fresh noise back up to it (k-diffusion's Euler a)."""
    calls = []
    for index in range(len(scheduler.timesteps)):
        sigma, following = pair(scheduler.sigmas, index)
        up = (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5
        down = (following**2 - up**2) ** 0.5
        calls.append(_call(scheduler, index, _towards(down / sigma)._replace(noise=up)))
    return calls


def heun(scheduler: Any) -> list[Call]:
    """Algorithm 1 of Karras et al. 2022: a step of Euler's, then again from its beginning along the
    mean of the directions at both ends. Two calls for each step but the last.
    """
    refuse(scheduler, clip_sample=False)
    calls = []
    for index in range(len(scheduler.timesteps)):
        if index % 2:
            sigma, following = pair(scheduler.sigmas, index - 1)
            half = (following - sigma) / 2
            begun, ended = half / sigma, half / following
            after = Mix(base=1 + begun, before=-begun, x=ended, x0=-ended)
        else:
            sigma, following = pair(scheduler.sigmas, index)
            after = _towards(following / sigma)
        calls.append(_call(scheduler, index, after))
    return calls


def flow(scheduler: Any) -> list[Call]:
    """Euler along x = (1 - σ)·x0 + σ·ε with output ε - x0 (https://arxiv.org/abs/2403.03206)."""
    refuse(scheduler, invert_sigmas=False)
    return _flow(scheduler, renewed=scheduler.config.get("stochastic_sampling", False))


def flow_lcm(scheduler: Any) -> list[Call]:
    """The same with fresh noise in every step."""
    refuse(scheduler, invert_sigmas=False, scale_factors=None)
    return _flow(scheduler, renewed=True)


def _flow(scheduler: Any, renewed: bool) -> list[Call]:
    calls = []
    for index, timestep in enumerate(scheduler.timesteps):
        sigma, following = pair(scheduler.sigmas, index)
        after = Mix(x0=1 - following, noise=following) if renewed else _towards(following / sigma)
        calls.append(Call(1 - sigma, sigma, float(timestep), 1.0, 1.0, -sigma, after))
    return calls


def _towards(ratio: float) -> Mix:
    """The step that leaves a part of the noise."""
    return Mix(x=ratio, x0=1 - ratio)


def _call(scheduler: Any, index: int, after: Mix) -> Call:
    """From x = x0 + σ·ε; the model is given x / √(σ² + 1)."""
    sigma = float(scheduler.sigmas[index])
    c_in = (sigma**2 + 1) ** -0.5
    # what the model is given has signal `c_in` and noise `c_in * sigma`
    c_skip, c_out = skip_and_out(scheduler.config.prediction_type, c_in, c_in * sigma)
    timestep = float(scheduler.timesteps[index])
    return Call(1.0, sigma, timestep, c_in, c_skip * c_in, c_out, after)
