"""One call of the model as numbers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Unsupported(Exception):
    """The engine does not support this; the reference renderer does."""


class Mix(NamedTuple):
    """Weights of a sum of the latents `x`, the estimates of the finished latents by this call, the
    one `before` it and the one `earlier` than that, the `base`, and fresh standard noise.
    """

    x: float = 0.0
    x0: float = 0.0
    before: float = 0.0
    earlier: float = 0.0
    base: float = 0.0
    noise: float = 0.0


UNCHANGED = Mix(x=1.0)


class Call(NamedTuple):
    """The coefficients of one call of the model at latents x, which are given times `c_in`:

        x0 = c_skip · x + c_out · out

    `after` mixes the next latents, and `base` the latents that the call after this one may go back
    to. Before the call an image's latents are signal · x0 + noise · ε.
    """

    signal: float
    noise: float
    timestep: float
    c_in: float
    c_skip: float
    c_out: float
    after: Mix
    base: Mix = UNCHANGED


def refuse(scheduler: Any, **wanted: Any) -> None:
    """Raise Unsupported for a configuration that the tables do not cover."""
    for name, value in wanted.items():
        if (found := scheduler.config.get(name, value)) != value:
            raise Unsupported(f"{type(scheduler).__name__} with {name} = {found!r}")


def skip_and_out(prediction: str, alpha: float, sigma: float) -> tuple[float, float]:
    """The coefficients of x and of the output in x0, where x = alpha · x0 + sigma · noise."""
    if prediction == "epsilon" and alpha > 0:
        return 1 / alpha, -sigma / alpha
    if prediction == "v_prediction":
        return alpha, -sigma
    if prediction == "flow_prediction":
        return 1.0, -sigma
    if prediction == "sample":
        return 0.0, 1.0
    raise Unsupported(f"prediction_type {prediction!r} with signal {alpha:g}")


def pair(sigmas: Tensor, index: int) -> tuple[float, float]:
    """A sigma and the one after it."""
    return float(sigmas[index]), float(sigmas[index + 1])


class Levels(NamedTuple):
    """The signal and the noise before each call and at the end, and the logarithms of their ratios;
    float64, the last ratio infinite where no noise is left.
    """

    signals: Tensor
    noises: Tensor
    logs: Tensor


def levels_of(scheduler: Any) -> Levels:
    """The levels of a scheduler of sigmas, which are ratios of noise to signal, or with flow
    matching the noise itself.
    """
    sigmas: Tensor = scheduler.sigmas.double()
    flow = scheduler.config.get("use_flow_sigmas")
    signals = 1 - sigmas if flow else (1 + sigmas**2).rsqrt()
    noises = sigmas if flow else sigmas * signals
    return Levels(signals, noises, torch.log(signals) - torch.log(noises))
