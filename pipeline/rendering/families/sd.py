"""Stable Diffusion 1.x, 2.x and XL: a UNet with one text encoder, or two."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.rendering.families.base import (
    IMAGES,
    Conditioning,
    check_multiple,
    draw,
    encoded,
    execution_device,
    images,
    shrunk,
    stacked,
)
from pipeline.rendering.inputs import MASK_ASKED
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import SamplerTable, Unsupported, sampler_table
from pipeline.rendering.text_encoders import TextEncoders


class StableDiffusion:
    """The Family port over a StableDiffusionPipeline, 1.x and 2.x."""

    keeps_norm = False

    def __init__(self, pipe: Any, preview_decoder: Any) -> None:
        self._pipe, self.device = pipe, execution_device(pipe)
        self._preview_decoder = preview_decoder
        self._scale: int = pipe.vae_scale_factor
        self.fills = "Inpaint" in type(pipe).__name__ and (
            self._model.config.in_channels > pipe.vae.config.latent_channels
        )
        if self._model.config.get("time_cond_proj_dim") is not None:
            raise Unsupported("a UNet with its guidance built in")

    def check(self, request: RenderRequest) -> None:
        """Check that the sides are multiples of 8, as diffusers' pipeline does."""
        check_multiple(request, 8)
        if self.fills and not request.mask:
            raise JobError(MASK_ASKED)

    def guides(self, request: RenderRequest) -> bool:
        """True above guidance 1."""
        return request.guidance > 1

    @cached_property
    def _texts(self) -> TextEncoders:
        """Stable Diffusion's text encoders; other families read their texts themselves."""
        return TextEncoders(self._pipe)

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The text encoders' hidden states, and the pooled output where the model takes one."""
        return self._texts.encode(prompts)

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        """The prompt's own conditioning."""
        return self.encode([prompt])[0]

    def sampler_table(self, steps: int, width: int, height: int, first: int = 0) -> SamplerTable:
        """The table of the pipeline's scheduler."""
        return sampler_table(self._pipe.scheduler, steps, first)

    def encode_image(self, image: Tensor) -> Tensor:
        """One call of the encoder."""
        return encoded(self._pipe.vae, image)

    def latents(self, encoded: Tensor, request: RenderRequest) -> Tensor:
        """Scaled."""
        return self._scaled(encoded, self._pipe.vae.config)

    def mask(self, mask: Tensor, request: RenderRequest) -> Tensor:
        """[1, height / 8, width / 8]."""
        return shrunk(mask, request.height // self._scale, request.width // self._scale)[None]

    def noise(self, request: RenderRequest, generator: torch.Generator) -> Tensor:
        """[channels, height / 8, width / 8]."""
        channels = self._pipe.vae.config.latent_channels
        shape = (channels, request.height // self._scale, request.width // self._scale)
        return draw(shape, generator, self.device)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """One call of the UNet."""
        added = self._added(texts, requests)
        if adapters := [name for name in texts[0] if name.startswith(IMAGES)]:
            embeds = [stacked(texts, name).to(self._model.dtype) for name in adapters]
            added = (added or {}) | {"image_embeds": embeds}
        if self.fills:
            x = torch.cat([x, stacked(texts, "filling")], 1)
        output: Tensor = self._model(
            x.to(self._model.dtype),
            timesteps,
            encoder_hidden_states=stacked(texts, "text"),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output.float()

    def decode(self, x: Tensor, request: RenderRequest) -> Tensor:
        """One call of the decoder."""
        return self._decoded(self._pipe.vae, x)

    def preview(self, x: Tensor, request: RenderRequest) -> Tensor:
        """One call of the preview decoder."""
        return self._decoded(self._preview_decoder, x)

    @property
    def _model(self) -> Any:
        return self._pipe.unet

    def _added(
        self, texts: Sequence[Conditioning], requests: Sequence[RenderRequest]
    ) -> dict[str, Any] | None:
        return None

    def _decoded(self, vae: Any, x: Tensor) -> Tensor:
        plain = self._unscaled(x, vae.config).to(vae.dtype)
        return images(vae.decode(plain, return_dict=False)[0])

    def _unscaled(self, x: Tensor, config: Any) -> Tensor:
        unscaled: Tensor = x / config.scaling_factor
        return unscaled

    def _scaled(self, x: Tensor, config: Any) -> Tensor:
        scaled: Tensor = x * config.scaling_factor
        return scaled


class StableDiffusionXL(StableDiffusion):
    """The Family port over a StableDiffusionXLPipeline, conditioned on the size too."""

    def __init__(self, pipe: Any, preview_decoder: Any) -> None:
        super().__init__(pipe, preview_decoder)
        # its activations overflow fp16
        if pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
            pipe.vae.to(torch.float32)

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        """The prompt's conditioning; zeros for an empty prompt where the model was trained so."""
        return self._texts.encode_negatives([prompt])[0]

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
        scale, shift = self._spread(x, config)
        return super()._unscaled(x, config) * scale + shift

    def _scaled(self, x: Tensor, config: Any) -> Tensor:
        scale, shift = self._spread(x, config)
        return super()._scaled((x - shift) / scale, config)

    def _spread(self, x: Tensor, config: Any) -> tuple[Tensor, Tensor]:
        """The scale and shift of each channel of the latents, 1 and 0 where none are given."""
        std, mean = config.get("latents_std"), config.get("latents_mean")
        if mean is None or std is None:
            return x.new_ones(()), x.new_zeros(())
        return x.new_tensor(std).view(-1, 1, 1), x.new_tensor(mean).view(-1, 1, 1)
