"""Model families of the engine: one class for each."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.rendering.families.base import IMAGES, Conditioning, Family
from pipeline.rendering.families.flux import Flux
from pipeline.rendering.families.flux2 import Flux2, Flux2Klein
from pipeline.rendering.families.qwen_image import QwenImage
from pipeline.rendering.families.sd import StableDiffusion, StableDiffusionXL
from pipeline.rendering.families.sd3 import StableDiffusion3
from pipeline.rendering.families.z_image import ZImage
from pipeline.rendering.sampler import Unsupported

__all__ = ["IMAGES", "Conditioning", "Family", "family_of"]

_FAMILIES: Mapping[str, Callable[[Any, Any], Family]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionInpaintPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusionXLInpaintPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "Flux2Pipeline": Flux2,
    "Flux2KleinPipeline": Flux2Klein,
    "QwenImagePipeline": QwenImage,
    "ZImagePipeline": ZImage,
}


def family_of(pipe: Any, preview_decoder: Any = None) -> Family:
    """The family of a diffusers pipeline. Previews are decoded by `preview_decoder`, else by the
    pipeline's own. Raises Unsupported for an unknown pipeline, and for an unknown scheduler.
    """
    make = _FAMILIES.get(type(pipe).__name__)
    if make is None:
        raise Unsupported(type(pipe).__name__)
    family = make(pipe, preview_decoder or pipe.vae)
    family.sampler_table(1, 512, 512)
    return family
