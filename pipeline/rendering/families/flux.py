"""FLUX.1: a transformer over packed latents, trained by flow matching, with guidance built in."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.rendering.families.base import (
    Conditioning,
    check_multiple,
    draw,
    encoded,
    execution_device,
    images,
    shrunk,
    stacked,
)
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import SamplerTable, Unsupported, sampler_table, shift_of
from pipeline.rendering.text_encoders import TextEncoders

TRAIN_TIMESTEPS = 1000
PATCH = 2


class Flux:
    """The Family port over a FluxPipeline. Latents are [height / 16 · width / 16, 4 · channels]."""

    fills = keeps_norm = False
    gives_sigmas = False
    """True for a pipeline that gives its noise levels to schedulers with flow sigmas as well."""

    def __init__(self, pipe: Any, preview_decoder: Any) -> None:
        self._pipe, self.device = pipe, execution_device(pipe)
        self._preview_decoder = preview_decoder
        self._guidance: bool = pipe.transformer.config.guidance_embeds

    def check(self, request: RenderRequest) -> None:
        """Check the sides: multiples of a packed token. Negative prompts are Unsupported."""
        check_multiple(request, self._token)
        if self._guidance and request.negative and request.guidance > 1:
            raise Unsupported("a negative prompt for FLUX")

    def guides(self, request: RenderRequest) -> bool:
        """False: guidance is an input of the model."""
        return False

    @cached_property
    def _texts(self) -> TextEncoders:
        """FLUX.1's text encoders; other families read their texts themselves."""
        return TextEncoders(self._pipe)

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """T5's hidden states and CLIP's pooled output."""
        return self._texts.encode(prompts)

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        """The prompt's own conditioning."""
        return self.encode([prompt])[0]

    def sampler_table(self, steps: int, width: int, height: int, first: int = 0) -> SamplerTable:
        """The table of the pipeline's scheduler, shifted for the image's size."""
        scheduler = self._pipe.scheduler
        tokens = (height // self._token) * (width // self._token)
        shift: dict[str, Any] = {"mu": self._shift(tokens, steps)}
        if self.gives_sigmas or not scheduler.config.get("use_flow_sigmas"):
            shift["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        return sampler_table(scheduler, steps, first, **shift)

    def _shift(self, tokens: int, steps: int) -> float:
        return shift_of(self._pipe.scheduler, tokens)

    def noise(self, request: RenderRequest, generator: torch.Generator) -> Tensor:
        """[tokens, 4 · channels], drawn in the shape of unpacked latents, as diffusers does."""
        channels = self._pipe.transformer.config.in_channels // PATCH**2
        rows, columns = self._rows(request), self._columns(request)
        plain = draw((channels, rows * PATCH, columns * PATCH), generator, self.device)
        return self._packed(plain, request)

    def encode_image(self, image: Tensor) -> Tensor:
        """One call of the encoder."""
        return encoded(self._pipe.vae, image)

    def latents(self, encoded: Tensor, request: RenderRequest) -> Tensor:
        """Scaled, then packed."""
        return self._packed(self._scaled(encoded), request)

    def mask(self, mask: Tensor, request: RenderRequest) -> Tensor:
        """Packed, for all channels."""
        channels = self._pipe.transformer.config.in_channels // PATCH**2
        rows, columns = self._rows(request) * PATCH, self._columns(request) * PATCH
        return self._packed(shrunk(mask, rows, columns).expand(channels, -1, -1), request)

    def _packed(self, plain: Tensor, request: RenderRequest) -> Tensor:
        """[c, 2 · rows, 2 · columns] → [rows · columns, 4 · c]."""
        rows, columns = self._rows(request), self._columns(request)
        patches = plain.reshape(-1, rows, PATCH, columns, PATCH).permute(1, 3, 0, 2, 4)
        return patches.reshape(rows * columns, -1)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """One call of the transformer."""
        transformer = self._pipe.transformer
        scales = torch.tensor([request.guidance for request in requests], device=self.device)
        states = stacked(texts, "text")
        # [tokens, 3]: 0, row and column of each token
        rows, columns = self._rows(requests[0]), self._columns(requests[0])
        places = torch.zeros(rows, columns, 3, device=self.device)
        places[..., 1] = torch.arange(rows, device=self.device)[:, None]
        places[..., 2] = torch.arange(columns, device=self.device)[None, :]
        output: Tensor = transformer(
            hidden_states=x.to(transformer.dtype),
            timestep=timesteps.to(transformer.dtype) / TRAIN_TIMESTEPS,
            guidance=scales if self._guidance else None,
            pooled_projections=stacked(texts, "pooled"),
            encoder_hidden_states=states,
            txt_ids=states.new_zeros(states.shape[1], 3),
            img_ids=places.view(-1, 3).to(states.dtype),
            return_dict=False,
        )[0]
        return output.float()

    def decode(self, x: Tensor, request: RenderRequest) -> Tensor:
        """Unpack, then one call of the decoder."""
        return self._decoded(self._pipe.vae, x, request)

    def preview(self, x: Tensor, request: RenderRequest) -> Tensor:
        """Unpack, then one call of the preview decoder."""
        return self._decoded(self._preview_decoder, x, request)

    def _decoded(self, vae: Any, x: Tensor, request: RenderRequest) -> Tensor:
        rows, columns = self._rows(request), self._columns(request)
        patches = x.view(len(x), rows, columns, -1, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        plain = patches.reshape(len(x), -1, rows * PATCH, columns * PATCH)
        return images(self._unscaled_and_decoded(vae, plain))

    def _scaled(self, plain: Tensor) -> Tensor:
        config = self._pipe.vae.config
        scaled: Tensor = (plain - config.shift_factor) * config.scaling_factor
        return scaled

    def _unscaled_and_decoded(self, vae: Any, x: Tensor) -> Tensor:
        """A decoder's output [n, 3, height, width] in -1..1 for plain latents."""
        x = x / vae.config.scaling_factor + vae.config.shift_factor
        decoded: Tensor = vae.decode(x.to(vae.dtype), return_dict=False)[0]
        return decoded

    @property
    def _token(self) -> int:
        token: int = self._pipe.vae_scale_factor * PATCH
        return token

    def _rows(self, request: RenderRequest) -> int:
        return request.height // self._token

    def _columns(self, request: RenderRequest) -> int:
        return request.width // self._token
