"""The settings of a row that a renderer's pipeline accepts, told by its class, without torch."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.models.checkpoints import INDEX, checkpoint
from pipeline.models.pipelines import call_of, sources
from pipeline.models.safetensors import read_json

GUIDANCE = frozenset(
    {
        "distilled_guidance_scale",
        "guidance_scale",
        "prior_guidance_scale",
        "true_cfg_scale",
    }
)
"""The names of a call's guidance."""
GUIDERS = ("guider", "ocr_guider")
"""Parts by which a pipeline guides, where its call does not name the scale."""
UNGUIDED = "DreamLiteMobilePipeline"
"""Distilled models, which take a `guidance_scale` and ignore it."""


@dataclass(frozen=True)
class Accepted:
    """The columns that a pipeline of the class `name` has a use for; `plain` are rows without a
    mask.
    """

    name: str
    guidance: bool = True
    negative: bool = True
    plain: bool = True


def accepted_by(model: Path) -> Accepted:
    """The settings that the pipeline in a folder or a single file accepts. Raises ModelError."""
    index = checkpoint(model).configs[INDEX] if model.is_file() else read_json(model / INDEX)
    name = str(index.get("_class_name"))
    file = sources().get(name)
    takes = call_of(name, file).takes if file else frozenset[str]()
    if not takes:
        return Accepted(name)
    guided = bool(takes & GUIDANCE) or any(index.get(part) for part in GUIDERS)
    distilled = name == UNGUIDED or (name == "Flux2KleinPipeline" and index.get("is_distilled"))
    return Accepted(
        name, guided and not distilled, "negative_prompt" in takes, "mask_image" not in takes
    )
