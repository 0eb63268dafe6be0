"""ControlNets beside their denoisers: the image that each reads, and the residuals that it adds.

As in diffusers' own ControlNet pipelines, without their guess mode. Latents of an image are the
mode of their distribution, where those pipelines draw from it.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.models.diffusion import denoiser_of

Call = Mapping[str, Any]
"""The arguments of a call of the denoiser, by name."""
Residuals = dict[str, Sequence[Tensor]]
"""By argument of the denoiser, the tensors that it adds to its blocks' outputs, in order."""


class ControlNet:
    """A ControlNet of a UNet: SD 1.x, 2.x and XL."""

    ROWS: tuple[str, ...] = ("sample", "timestep", "encoder_hidden_states")
    """The denoiser's arguments that have a row for each image."""

    def __init__(self, net: Any, pipe: Any) -> None:
        self.net, self._pipe, self._denoiser = net, pipe, denoiser_of(pipe)

    def read(self, image: Tensor) -> Tensor:
        """The form that the ControlNet reads of an image [3, height, width] in 0..1."""
        return image

    def residuals(
        self, call: Call, rows: Tensor, images: Tensor, requests: Sequence[RenderRequest]
    ) -> Residuals:
        """The residuals for some rows of a call, for the images and the requests of these rows."""
        added = call.get("added_cond_kwargs") or {}
        down, middle = self.net(
            **_of_rows(call, self.ROWS, rows),
            controlnet_cond=images,
            added_cond_kwargs=_of_rows(added, ("text_embeds", "time_ids"), rows),
            return_dict=False,
        )
        return {
            "down_block_additional_residuals": down,
            "mid_block_additional_residual": [middle],
        }


class SD3ControlNet(ControlNet):
    """A ControlNet of SD 3 and 3.5."""

    ROWS = ("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections")

    def __init__(self, net: Any, pipe: Any) -> None:
        super().__init__(net, pipe)
        if net.config.get("use_pos_embed") is False:
            places = net._get_pos_embed_from_transformer(self._denoiser)
            net.pos_embed = places.to(net.device, net.dtype)

    def read(self, image: Tensor) -> Tensor:
        """Latents [channels, height / 8, width / 8]."""
        vae, zeros = self._pipe.vae, self.net.config.force_zeros_for_pooled_projection
        return _encoded(vae, image, 0 if zeros else vae.config.shift_factor)

    def residuals(
        self, call: Call, rows: Tensor, images: Tensor, requests: Sequence[RenderRequest]
    ) -> Residuals:
        """One for each of the transformer's blocks."""
        given, config = _of_rows(call, self.ROWS, rows), self.net.config
        if config.force_zeros_for_pooled_projection:
            given["pooled_projections"] = torch.zeros_like(given["pooled_projections"])
        if config.joint_attention_dim is None:
            given["encoder_hidden_states"] = None
        (samples,) = self.net(**given, controlnet_cond=images, return_dict=False)
        blocks = len(self._denoiser.transformer_blocks)
        each = blocks / len(samples)
        spread = [samples[int(block / each)] for block in range(blocks)]
        return {"block_controlnet_hidden_states": spread}


class FluxControlNet(ControlNet):
    """A ControlNet of FLUX.1."""

    ROWS = ("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections")

    def read(self, image: Tensor) -> Tensor:
        """Packed latents [tokens, 4 · channels]."""
        latents = _encoded(self._pipe.vae, image, self._pipe.vae.config.shift_factor)
        packed: Tensor = self._pipe._pack_latents(latents[None], 1, *latents.shape)[0]
        return packed

    def residuals(
        self, call: Call, rows: Tensor, images: Tensor, requests: Sequence[RenderRequest]
    ) -> Residuals:
        """One for each of the transformer's blocks, of both kinds where the ControlNet has both."""
        guidance = None
        if self.net.config.guidance_embeds:
            # the transformer's own: with a negative prompt it is not the request's
            theirs, scales = call.get("guidance"), [request.guidance for request in requests]
            guidance = (
                torch.tensor(scales, device=images.device) if theirs is None else theirs[rows]
            )
        double, single = self.net(
            **_of_rows(call, self.ROWS, rows),
            controlnet_cond=images,
            guidance=guidance,
            txt_ids=call["txt_ids"],
            img_ids=call["img_ids"],
            return_dict=False,
        )
        found: Residuals = {}
        if double:
            blocks = len(self._denoiser.transformer_blocks)
            found["controlnet_block_samples"] = _spread(double, blocks)
        if single:
            blocks = len(self._denoiser.single_transformer_blocks)
            found["controlnet_single_block_samples"] = _spread(single, blocks)
        return found


CONTROLNETS: Mapping[str, type[ControlNet]] = {
    "ControlNetModel": ControlNet,
    "SD3ControlNetModel": SD3ControlNet,
    "FluxControlNetModel": FluxControlNet,
}
"""By diffusers' class of the model."""


def _of_rows(call: Call, names: Sequence[str], rows: Tensor) -> dict[str, Any]:
    """The named arguments of some rows; a timestep without a batch axis is one for all."""
    return {
        name: value[rows] if value.ndim else value
        for name in names
        if (value := call.get(name)) is not None
    }


def _encoded(vae: Any, image: Tensor, shift: float) -> Tensor:
    """The latents of an image [3, height, width] in 0..1."""
    pixels = (image * 2 - 1)[None].to(vae.dtype)
    latents: Tensor = (vae.encode(pixels).latent_dist.mode() - shift) * vae.config.scaling_factor
    return latents[0]


def _spread(samples: Sequence[Tensor], blocks: int) -> list[Tensor]:
    """One for each block: the same for as many neighbours as it takes."""
    each = ceil(blocks / len(samples))
    return [samples[block // each] for block in range(blocks)]
