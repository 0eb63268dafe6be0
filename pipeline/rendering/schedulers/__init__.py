"""Schedulers of diffusers as coefficients: one function for each class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.rendering.schedulers.base import Call, Mix, Unsupported
from pipeline.rendering.schedulers.ddim import ddim, lcm, tcd
from pipeline.rendering.schedulers.dpm import multistep, singlestep
from pipeline.rendering.schedulers.euler import euler, euler_ancestral, flow, flow_lcm, heun
from pipeline.rendering.schedulers.unipc import unipc

__all__ = ["CALLS", "Call", "Mix", "Unsupported"]

CALLS: Mapping[str, Callable[[Any], Sequence[Call]]] = {
    "EulerDiscreteScheduler": euler,
    "EulerAncestralDiscreteScheduler": euler_ancestral,
    "HeunDiscreteScheduler": heun,
    "DDIMScheduler": ddim,
    "LCMScheduler": lcm,
    "TCDScheduler": tcd,
    "DPMSolverMultistepScheduler": multistep,
    "DPMSolverSinglestepScheduler": singlestep,
    "UniPCMultistepScheduler": unipc,
    "FlowMatchEulerDiscreteScheduler": flow,
    "FlowMatchLCMScheduler": flow_lcm,
}
"""By class: the calls of the model by a scheduler whose timesteps and begin are set."""
