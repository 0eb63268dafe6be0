"""Schedulers as tables of coefficients, one row per step, so that the samples of a batch can be at
different steps.

Every scheduler here is linear. With the model's output `out` at latents `x`,

    x0    = c_skip · x + c_out · out                        the estimate of the finished latents
    after = a_x · x + a_x0 · x0 + a_prev · x0_before + a_noise · noise

`x0_before` is the estimate of the step before, `noise` fresh standard noise. The coefficients are
computed from the timesteps and sigmas of diffusers' own scheduler.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Unsupported(Exception):
    """The engine does not support this; the reference renderer does."""


class Step(NamedTuple):
    """The coefficients of one step; the model's input is multiplied by `c_in`. Before the step an
    image's latents are signal · x0 + noise · ε.
    """

    signal: float
    noise: float
    timestep: float
    c_in: float
    c_skip: float
    c_out: float
    a_x: float
    a_x0: float
    a_prev: float = 0.0
    a_noise: float = 0.0


@dataclass(frozen=True)
class SamplerTable:
    """A schedule. `rows` is float32 [steps, 8], a row as in Step from `timestep` on, and `levels`
    [steps + 1, 2] the signal and noise before each step and at the end. Rendering begins before the
    step `first`: without an image before the first of all, from noise times `start`.
    """

    rows: Tensor
    levels: Tensor
    first: int
    start: float
    has_history: bool
    has_noise: bool

    def __len__(self) -> int:
        return len(self.rows)


def sampler_table(scheduler: Any, steps: int, first: int = 0, **shift: Any) -> SamplerTable:
    """The table of a diffusers scheduler for `steps` steps, of which those before `first` are left
    out; `shift` goes to its `set_timesteps`.

    Raises Unsupported for a scheduler without such a table.
    """
    rows_of = _TABLES.get(type(scheduler).__name__)
    if rows_of is None:
        raise Unsupported(f"the scheduler {type(scheduler).__name__}")
    own = copy.deepcopy(scheduler)
    own.set_timesteps(**({"num_inference_steps": steps} | shift))
    if len(own.timesteps) != steps:
        raise Unsupported(f"{len(own.timesteps)} timesteps for {steps} steps")
    rows = rows_of(own)
    # there is no estimate before the first step
    rows[first] = rows[first]._replace(a_x0=rows[first].a_x0 + rows[first].a_prev, a_prev=0.0)
    start = float(getattr(own, "init_noise_sigma", 1.0))
    return SamplerTable(
        torch.tensor([row[2:] for row in rows], dtype=torch.float32),
        torch.tensor([*(row[:2] for row in rows), (1, 0)], dtype=torch.float32),
        first,
        start,
        has_history=any(row.a_prev for row in rows),
        has_noise=any(row.a_noise for row in rows),
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


def _refuse(scheduler: Any, **wanted: Any) -> None:
    """Raise Unsupported for a configuration that the tables do not cover."""
    for name, value in wanted.items():
        if (found := scheduler.config.get(name, value)) != value:
            raise Unsupported(f"{type(scheduler).__name__} with {name} = {found!r}")


def _skip_and_out(prediction: str, alpha: float, sigma: float) -> tuple[float, float]:
    """The coefficients of x and of the output in x0, where x = alpha · x0 + sigma · noise."""
    if prediction == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction == "v_prediction":
        return alpha, -sigma
    raise Unsupported(f"prediction_type {prediction!r}")


def _euler(scheduler: Any) -> list[Step]:
    """Algorithm 2 without churn of Karras et al. 2022, https://arxiv.org/abs/2206.00364."""
    _refuse(scheduler, timestep_type="discrete")
    return [_euler_step(scheduler, index, down=None) for index in range(len(scheduler.timesteps))]


def _euler_ancestral(scheduler: Any) -> list[Step]:
    """Steps below the next sigma, with fresh noise back up to it (k-diffusion's Euler a)."""
    rows = []
    for index in range(len(scheduler.timesteps)):
        sigma, following = _pair(scheduler.sigmas, index)
        up = (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5
        down = (following**2 - up**2) ** 0.5
        rows.append(_euler_step(scheduler, index, down)._replace(a_noise=up))
    return rows


def _euler_step(scheduler: Any, index: int, down: float | None) -> Step:
    """From x = x0 + σ·ε; the model is given x / √(σ² + 1)."""
    sigma, following = _pair(scheduler.sigmas, index)
    ratio = (following if down is None else down) / sigma
    c_in = (sigma**2 + 1) ** -0.5
    # what the model is given has signal `c_in` and noise `c_in * sigma`
    c_skip, c_out = _skip_and_out(scheduler.config.prediction_type, c_in, c_in * sigma)
    timestep = float(scheduler.timesteps[index])
    return Step(1.0, sigma, timestep, c_in, c_skip * c_in, c_out, ratio, 1 - ratio)


def _flow(scheduler: Any) -> list[Step]:
    """Euler along x = (1 - σ)·x0 + σ·ε with output ε - x0 (https://arxiv.org/abs/2403.03206)."""
    _refuse(scheduler, stochastic_sampling=False, invert_sigmas=False)
    rows = []
    for index, timestep in enumerate(scheduler.timesteps):
        sigma, following = _pair(scheduler.sigmas, index)
        ratio = following / sigma
        rows.append(Step(1 - sigma, sigma, float(timestep), 1.0, 1.0, -sigma, ratio, 1 - ratio))
    return rows


def _ddim(scheduler: Any) -> list[Step]:
    """Equation 12 of Song et al. 2020 with η = 0, https://arxiv.org/abs/2010.02502."""
    _refuse(scheduler, clip_sample=False, thresholding=False)
    alphas = scheduler.alphas_cumprod.double()
    stride = scheduler.config.num_train_timesteps // len(scheduler.timesteps)
    rows = []
    for timestep in map(int, scheduler.timesteps):
        before = timestep - stride
        kept = float(alphas[timestep])
        next_kept = float(alphas[before] if before >= 0 else scheduler.final_alpha_cumprod)
        alpha, sigma = kept**0.5, (1 - kept) ** 0.5
        ratio = (1 - next_kept) ** 0.5 / sigma
        factors = _skip_and_out(scheduler.config.prediction_type, alpha, sigma)
        a_x0 = next_kept**0.5 - ratio * alpha
        rows.append(Step(alpha, sigma, timestep, 1.0, *factors, ratio, a_x0))
    return rows


def _dpm(scheduler: Any) -> list[Step]:
    """DPM-Solver++(2M), algorithm 2 of Lu et al. 2022, https://arxiv.org/abs/2211.01095."""
    _refuse(
        scheduler, algorithm_type="dpmsolver++", solver_type="midpoint", solver_order=2,
        thresholding=False, use_flow_sigmas=False,
    )  # fmt: skip
    config, count = scheduler.config, len(scheduler.timesteps)
    # signal, noise and log ratio of the two; a float64 infinity at the end where noise is 0
    sigmas = scheduler.sigmas.double()
    alphas = (1 + sigmas**2).rsqrt()
    noises = sigmas * alphas
    logs = alphas.log() - noises.log()
    last_is_first_order = (
        config.final_sigmas_type == "zero"
        or config.euler_at_final
        or (config.lower_order_final and count < 15)
    )
    rows = []
    for index, timestep in enumerate(scheduler.timesteps):
        gap = logs[index + 1] - logs[index]
        a_x0 = float(-alphas[index + 1] * torch.expm1(-gap))
        alpha, sigma = float(alphas[index]), float(noises[index])
        factors = _skip_and_out(config.prediction_type, alpha, sigma)
        a_x = float(noises[index + 1]) / sigma
        row = Step(alpha, sigma, float(timestep), 1.0, *factors, a_x, a_x0)
        if index > 0 and not (index == count - 1 and last_is_first_order):
            share = float(0.5 * gap / (logs[index] - logs[index - 1]))
            row = row._replace(a_x0=a_x0 * (1 + share), a_prev=-a_x0 * share)
        rows.append(row)
    return rows


def _pair(sigmas: Tensor, index: int) -> tuple[float, float]:
    return float(sigmas[index]), float(sigmas[index + 1])


_TABLES: Mapping[str, Callable[[Any], list[Step]]] = {
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler_ancestral,
    "DDIMScheduler": _ddim,
    "DPMSolverMultistepScheduler": _dpm,
    "FlowMatchEulerDiscreteScheduler": _flow,
}
