"""The conditions of a diffusers pipeline, one module for each."""

from pipeline.rendering.conditions.base import Condition, applied, reworded
from pipeline.rendering.conditions.control import Controls
from pipeline.rendering.conditions.image_adapter import ImageAdapters
from pipeline.rendering.conditions.lora import Loras
from pipeline.rendering.conditions.textual_inversion import TextualInversions

__all__ = ["CONDITIONS", "Condition", "ImageAdapters", "applied", "reworded"]

CONDITIONS: list[type[Condition]] = [ImageAdapters, Loras, TextualInversions, Controls]
"""All that a renderer knows; each is made once for a pipeline."""
