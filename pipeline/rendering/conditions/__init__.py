"""The conditions of a diffusers pipeline, one module for each."""

from pipeline.rendering.conditions.base import Condition, applied
from pipeline.rendering.conditions.image_adapter import ImageAdapter
from pipeline.rendering.conditions.lora import Loras

__all__ = ["CONDITIONS", "Condition", "ImageAdapter", "applied"]

CONDITIONS: list[type[Condition]] = [ImageAdapter, Loras]
"""All that a renderer knows; each is made once for a pipeline."""
