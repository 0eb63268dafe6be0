"""Differences between diffusers pipelines: their arguments and their guidance."""

import inspect
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.models.schedulers import eta_of
from pipeline.rendering.inputs import MASK_ASKED, mask_of

SCHNELL_TOKENS = 256
"""The longest prompt, in T5 tokens, that FLUX's distilled model was trained on."""

GUIDED_ABOVE_ZERO = ("ZImage", "Krea2")
"""Pipelines that add the difference to the prompt's own result: their 0 is 1 elsewhere."""

GUIDED_BELOW_ONE = ("Ideogram4", "DreamLite", "OmniGen", "LDM")
"""Pipelines that guide at any scale: below 1 they would follow the empty prompt."""

UNMASKED = ("Kandinsky5",)
"""Pipelines that pad the texts of a call to the longest one and let the image see the padding."""

FIXED: Mapping[str, Any] = {"use_resolution_binning": False, "guidance_schedule": None}
"""Arguments that switch off overrides of the requested size and guidance."""


def guided(request: RenderRequest) -> bool:
    """True where classifier-free guidance is on."""
    return request.guidance > 1


def hears_negative(pipe: Any, request: RenderRequest) -> bool:
    """True where a negative prompt has an effect."""
    return guided(request) and not distilled(pipe) and not _built_in(pipe)


def _built_in(pipe: Any) -> bool:
    """True for models that guide by themselves and read no negative prompt, though their pipeline
    takes one: a distilled HunyuanImage, and a UNet of a latent consistency model.
    """
    if "distilled_guidance_scale" in taken(pipe):
        return bool(pipe.transformer.config.guidance_embeds)
    unet = getattr(pipe, "unet", None) if "negative_prompt" in taken(pipe) else None
    return unet is not None and unet.config.get("time_cond_proj_dim") is not None


def unheard(request: RenderRequest) -> str:
    """The notice about a negative prompt without effect."""
    return f"the negative prompt has no effect with this model at guidance {request.guidance:g}"


def distilled(pipe: Any) -> bool:
    """True for FLUX.1's distilled model, which has no guidance of any kind."""
    name = type(pipe).__name__
    flux = name.startswith("Flux") and not name.startswith("Flux2")
    return flux and not pipe.transformer.config.guidance_embeds


def taken(pipe: Any) -> set[str]:
    """The names of a call's arguments, without those that would vanish in `**kwargs`."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    return {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}


def call_arguments(pipe: Any, requests: Sequence[RenderRequest]) -> dict[str, Any]:
    """The arguments of one pipeline call for requests of equal settings, without their seeds.

    Raises JobError for a setting that the pipeline does not take.
    """
    request, takes = requests[0], taken(pipe)
    if "mask_image" in takes and not request.mask:
        raise JobError(MASK_ASKED)
    # Stable Cascade's image comes of its prior, and a decoder makes it larger in steps of its own
    cascade = "prior_num_inference_steps" in takes and "guidance_scale" not in takes
    arguments: dict[str, Any] = {
        "prompt": [each.prompt for each in requests],
        "prior_num_inference_steps" if cascade else "num_inference_steps": request.steps,
        "output_type": "np",
    }
    size = {"width": request.width, "height": request.height}
    if images := [each.image.pixels for each in requests if each.image]:
        arguments |= {"image": images, "strength": strength_of(pipe, request)}
        size = {name: value for name, value in size.items() if name in takes}
    if request.mask:
        arguments["mask_image"] = [mask_of(each) for each in requests]
    arguments |= size
    arguments |= _guidance(pipe, request, takes)
    if request.negative and hears_negative(pipe, request):
        arguments["negative_prompt"] = [each.negative for each in requests]
    elif arguments.get("true_cfg_scale", 1) > 1:
        # without a negative prompt these pipelines do not guide at all
        arguments["negative_prompt"] = [" "] * len(requests)
    arguments |= {name: value for name, value in FIXED.items() if name in takes}
    if eta := eta_of(getattr(pipe, "scheduler", None)):
        arguments["eta"] = eta
    if "max_area" in takes:
        # FLUX.1 Kontext renders at this area, whatever the size
        arguments["max_area"] = request.width * request.height
    if "intermediate_timesteps" in takes and request.steps != 2:
        arguments["intermediate_timesteps"] = None
    if missing := sorted(arguments.keys() - takes):
        empty = "; leave `negative` empty" if missing == ["negative_prompt"] else ""
        raise JobError(f"the model's {type(pipe).__name__} takes no {', '.join(missing)}{empty}")
    return arguments


@contextmanager
def seeded(scheduler: Any, generators: Sequence[torch.Generator]) -> Generator[None]:
    """Let a scheduler's steps draw their noise from `generators`, which not every pipeline hands
    to them.
    """
    step = getattr(scheduler, "step", None)
    if step is None or "generator" not in inspect.signature(step).parameters:
        yield
        return
    scheduler.step = partial(step, generator=list(generators))
    try:
        yield
    finally:
        del scheduler.step


def strength_of(pipe: Any, request: RenderRequest) -> float:
    """The strength with which a pipeline begins at the request's first step: those of transformers
    round the steps down that they leave out, those of UNets those that they take.
    """
    taken = request.steps - request.first_step
    if not request.first_step:
        return 1.0
    half = 0.5 if hasattr(pipe, "unet") else -0.5
    return (taken + half) / request.steps


def _guidance(pipe: Any, request: RenderRequest, takes: set[str]) -> dict[str, Any]:
    name, scale = type(pipe).__name__, request.guidance
    if distilled(pipe) and "true_cfg_scale" in takes:
        return {"guidance_scale": scale, "max_sequence_length": SCHNELL_TOKENS}
    if "true_cfg_scale" in takes:
        if not ("guidance_scale" in takes and pipe.transformer.config.guidance_embeds):
            return {"true_cfg_scale": scale}
        # a negative prompt needs the real guidance beside the built-in one, at twice the cost
        real = bool(request.negative) and guided(request)
        return {"guidance_scale": 1.0 if real else scale, "true_cfg_scale": scale if real else 1.0}
    # distilled models that take a `guidance_scale` and ignore it
    ignored = name == "DreamLiteMobilePipeline" or (
        name == "Flux2KleinPipeline" and pipe.config["is_distilled"]
    )
    if "guidance_scale" in takes and not ignored:
        if name.startswith(GUIDED_ABOVE_ZERO):
            scale = max(scale - 1, 0)
        elif name.startswith(GUIDED_BELOW_ONE):
            scale = max(scale, 1)
        return {"guidance_scale": scale}
    if "prior_guidance_scale" in takes:
        return {"prior_guidance_scale": scale}
    if _built_in(pipe):
        return {"distilled_guidance_scale": scale}
    if guided(request) and not guiders(pipe):
        raise JobError(f"the model's {name} takes no guidance; let `guidance` be 0 or 1")
    return {}


def guiders(pipe: Any) -> list[Any]:
    """The parts by which a pipeline guides, where a call does not name the scale."""
    found = (getattr(pipe, name, None) for name in ("guider", "ocr_guider"))
    return [each for each in found if each is not None]


def set_parts(pipe: Any, request: RenderRequest) -> None:
    """Set what a call reads from the pipeline itself: the size, where it has a list of these, and
    the guidance of its guiders.
    """
    if "resolutions" in vars(pipe):
        pipe.resolutions = [(request.width, request.height)]
    for guider in guiders(pipe):
        if not guided(request):
            guider.disable()
            continue
        guider.enable()
        share = request.guidance / guider.config["guidance_scale"]
        # the later steps' scale is another one than the first steps'
        for name in ("guidance_scale", "adaptive_projected_guidance_scale"):
            if name in guider.config:
                setattr(guider, name, share * guider.config[name])
