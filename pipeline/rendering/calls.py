"""What differs between families of models: the arguments that their pipelines take."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import JobError
from pipeline.job import RenderRequest

SCHNELL_TOKENS = 256
"""The longest prompt, in T5 tokens, that FLUX's distilled model was trained on."""

GUIDED_ABOVE_ZERO = ("ZImage", "Krea2")
"""Families that add the difference to the prompt's own result: their 0 is 1 elsewhere."""

GUIDED_BELOW_ONE = ("Ideogram4", "DreamLite", "OmniGen")
"""Families that are guided at any strength: below 1 they would turn to the empty prompt."""

FIXED: Mapping[str, Any] = {"use_resolution_binning": False, "guidance_schedule": None}
"""What would override the size and the guidance that were asked for."""


def guided(request: RenderRequest) -> bool:
    """Whether classifier-free guidance is on."""
    return request.guidance > 1


def hears_negative(pipe: Any, request: RenderRequest) -> bool:
    """Whether a negative prompt has an effect."""
    return guided(request) and not distilled(pipe)


def unheard(request: RenderRequest) -> str:
    """What is said of a negative prompt that changes nothing."""
    return f"the negative prompt has no effect with this model at guidance {request.guidance:g}"


def distilled(pipe: Any) -> bool:
    """Whether it is FLUX.1's distilled model, which has no guidance of any kind."""
    name = type(pipe).__name__
    flux = name.startswith("Flux") and not name.startswith("Flux2")
    return flux and not pipe.transformer.config.guidance_embeds


def taken(pipe: Any) -> set[str]:
    """The names of a call's arguments; what would vanish in `**kwargs` is none."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    return {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}


def call_arguments(pipe: Any, requests: Sequence[RenderRequest]) -> dict[str, Any]:
    """The arguments of a pipeline's call that requests of equal settings decide, but their seeds.

    Raises JobError for a setting that the pipeline does not take.
    """
    request, takes = requests[0], taken(pipe)
    arguments: dict[str, Any] = {
        "prompt": [each.prompt for each in requests],
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.steps,
        "output_type": "np",
    }
    arguments |= _guidance(pipe, request, takes)
    if request.negative and hears_negative(pipe, request):
        arguments["negative_prompt"] = [each.negative for each in requests]
    elif arguments.get("true_cfg_scale", 1) > 1:
        # without a negative prompt these pipelines do not guide at all
        arguments["negative_prompt"] = [" "] * len(requests)
    arguments |= {name: value for name, value in FIXED.items() if name in takes}
    if "intermediate_timesteps" in takes and request.steps != 2:
        arguments["intermediate_timesteps"] = None
    if missing := sorted(arguments.keys() - takes):
        raise JobError(f"the model's {type(pipe).__name__} takes no {', '.join(missing)}")
    return arguments


def _guidance(pipe: Any, request: RenderRequest, takes: set[str]) -> dict[str, Any]:
    name, strength = type(pipe).__name__, request.guidance
    if "true_cfg_scale" in takes:
        return _true_guidance(pipe, request, takes)
    if "guidance_scale" in takes and not _ignores_guidance(pipe):
        if name.startswith(GUIDED_ABOVE_ZERO):
            strength = max(strength - 1, 0)
        elif name.startswith(GUIDED_BELOW_ONE):
            strength = max(strength, 1)
        return {"guidance_scale": strength}
    if "prior_guidance_scale" in takes:
        return {"prior_guidance_scale": strength}
    if "distilled_guidance_scale" in takes and pipe.transformer.config.guidance_embeds:
        return {"distilled_guidance_scale": strength}
    if guided(request):
        raise JobError(f"the model's {name} takes no guidance; let `guidance` be 0 or 1")
    return {}


def _ignores_guidance(pipe: Any) -> bool:
    """Whether a `guidance_scale` is taken and left aside, as by distilled models."""
    name = type(pipe).__name__
    return name == "DreamLiteMobilePipeline" or (
        name == "Flux2KleinPipeline" and bool(pipe.config["is_distilled"])
    )


def _true_guidance(pipe: Any, request: RenderRequest, takes: set[str]) -> dict[str, Any]:
    """Where guidance is built in, a negative prompt needs the real one, at twice the cost."""
    built_in = "guidance_scale" in takes and pipe.transformer.config.guidance_embeds
    if distilled(pipe):
        return {"guidance_scale": request.guidance, "max_sequence_length": SCHNELL_TOKENS}
    if not built_in:
        return {"true_cfg_scale": request.guidance}
    if request.negative and guided(request):
        return {"guidance_scale": 1.0, "true_cfg_scale": request.guidance}
    return {"guidance_scale": request.guidance, "true_cfg_scale": 1.0}
