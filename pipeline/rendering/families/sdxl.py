"""Stable Diffusion XL: a UNet with two text encoders, and the image's size as a condition."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.rendering.families.base import Conditioning, stacked
from pipeline.rendering.families.sd import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """The Family port over a StableDiffusionXLPipeline."""

    def __init__(self, pipe: Any, preview_decoder: Any) -> None:
        super().__init__(pipe, preview_decoder)
        # its activations overflow fp16
        if pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
            pipe.vae.to(torch.float32)

    def encode(self, prompts: Sequence[str]) -> list[Conditioning]:
        """The hidden states of both encoders, joined, and the second one's pooled output."""
        states, _, pooled, _ = self._pipe.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        return [{"text": s, "pooled": p} for s, p in zip(states, pooled, strict=True)]

    def encode_negative(self, prompt: str) -> Conditioning:
        """The prompt's conditioning; zeros for an empty prompt where the model was trained so."""
        text = self.encode([prompt])[0]
        if not prompt and self._pipe.config.force_zeros_for_empty_prompt:
            return {name: torch.zeros_like(value) for name, value in text.items()}
        return text

    def _added(
        self, texts: Sequence[Conditioning], requests: Sequence[RenderRequest]
    ) -> dict[str, Any]:
        pooled = stacked(texts, "pooled")
        # original size, the crop's corner, the size to make
        sizes = [(o.height, o.width, 0, 0, o.height, o.width) for o in requests]
        return {
            "text_embeds": pooled,
            "time_ids": torch.tensor(sizes, dtype=pooled.dtype, device=self.device),
        }

    def _unscaled(self, x: Tensor, config: Any) -> Tensor:
        mean, std = config.get("latents_mean"), config.get("latents_std")
        plain = super()._unscaled(x, config)
        if mean is None or std is None:
            return plain
        return plain * _channels(std, x) + _channels(mean, x)


def _channels(values: Sequence[float], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
