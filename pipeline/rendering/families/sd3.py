"""Stable Diffusion 3 and 3.5: a transformer trained by flow matching, with three text encoders."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.job import Order
from pipeline.rendering.families.base import (
    Conditioning,
    check_multiple,
    draw,
    execution_device,
    pictures,
    stacked,
)
from pipeline.rendering.families.shifting import shift_of
from pipeline.rendering.trajectory import Trajectory, trajectory


class StableDiffusion3:
    """The Family port over a StableDiffusion3Pipeline."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self.device = pipe, execution_device(pipe)
        self._scale: int = pipe.vae_scale_factor

    def check(self, order: Order) -> None:
        """Sides are multiples of a patch."""
        check_multiple(order, self._scale * self._pipe.patch_size)

    def guides(self, order: Order) -> bool:
        """Above guidance 1."""
        return order.guidance > 1

    def encode(self, prompts: Sequence[str]) -> list[Conditioning]:
        """All encoders' states in a row, and the pooled states of the first two."""
        states, _, pooled, _ = self._pipe.encode_prompt(
            list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return [{"text": s, "pooled": p} for s, p in zip(states, pooled, strict=True)]

    def encode_negative(self, prompt: str) -> Conditioning:
        """As for any prompt."""
        return self.encode([prompt])[0]

    def trajectory(self, steps: int, width: int, height: int) -> Trajectory:
        """By the pipeline's scheduler, shifted for the picture's size where it asks for that."""
        scheduler = self._pipe.scheduler
        shift: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting"):
            patch = self._scale * self._pipe.patch_size
            shift["mu"] = shift_of(scheduler, (height // patch) * (width // patch))
        return trajectory(scheduler, steps, **shift)

    def noise(self, order: Order, generator: torch.Generator) -> Tensor:
        """[channels, height / 8, width / 8]."""
        channels = self._pipe.transformer.config.in_channels
        shape = (channels, order.height // self._scale, order.width // self._scale)
        return draw(shape, generator, self.device)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        orders: Sequence[Order],
    ) -> Tensor:
        """One call of the transformer."""
        transformer = self._pipe.transformer
        output: Tensor = transformer(
            hidden_states=x.to(transformer.dtype),
            timestep=timesteps,
            encoder_hidden_states=stacked(texts, "text"),
            pooled_projections=stacked(texts, "pooled"),
            return_dict=False,
        )[0]
        return output.float()

    def decode(self, x: Tensor, order: Order) -> Tensor:
        """One call of the decoder."""
        vae = self._pipe.vae
        x = x / vae.config.scaling_factor + vae.config.shift_factor
        return pictures(vae.decode(x.to(vae.dtype), return_dict=False)[0])
