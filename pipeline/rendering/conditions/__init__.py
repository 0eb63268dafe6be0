"""The conditions of a diffusers pipeline, one module for each."""

from typing import Any

from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions.base import Condition, applied
from pipeline.rendering.conditions.image_adapter import ImageAdapter
from pipeline.rendering.conditions.lora import Loras

__all__ = ["Condition", "ImageAdapter", "applied", "conditions_of"]


def conditions_of(pipe: Any, models: Models, profile: DiffusersProfile) -> tuple[Condition, ...]:
    """All conditions that a profile's pipeline knows."""
    return ImageAdapter(pipe), Loras(pipe, models, profile)
