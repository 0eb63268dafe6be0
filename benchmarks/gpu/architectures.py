"""SDXL and FLUX.1 [dev] as they are published, with random weights: speed does not depend on them.

Configurations are those of `config.json` in stabilityai/stable-diffusion-xl-base-1.0 and
black-forest-labs/FLUX.1-dev. Weights are drawn such that each layer keeps the size of its numbers,
since arithmetic on zeros or on infinities would need less power and thus run faster.

Text encoders are left out, and random numbers in the shape of their states take their place: they
work once for a text and not once for a step, less than 0.5% of an image's work. All images have
the same text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn

from pipeline.rendering.families import Conditioning, Family
from pipeline.rendering.families.flux import Flux
from pipeline.rendering.families.sd import StableDiffusionXL
from pipeline.rendering.prompts import Prompt

Size = Literal["full", "tiny"]
CLIP_TOKENS, T5_TOKENS = 77, 512

DECODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "force_upcast": True,
}
TINY_DECODER = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}

SDXL_DECODER = {"latent_channels": 4, "scaling_factor": 0.13025}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    # by the model's numbers, heads and not their width
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TINY_UNET = {
    "block_out_channels": (8, 16, 32),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "norm_num_groups": 4,
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}
SDXL_SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

FLUX_DECODER = {
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
FLUX_TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "axes_dims_rope": (16, 56, 56),
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
TINY_TRANSFORMER = {
    "num_layers": 1,
    "num_single_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 4, 8),
    "joint_attention_dim": 32,
    "pooled_projection_dim": 16,
}
FLUX_SCHEDULE = {
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}


@dataclass(frozen=True)
class Subject:
    """A model to measure: diffusers' pipeline of it, the same for the engine, and the text of all
    its images.
    """

    pipe: Any
    denoiser: Any
    family: Family
    text: Conditioning


class Wordless:
    """A family whose text has been read already."""

    text: Conditioning

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The same for every prompt."""
        return [self.text for _ in prompts]

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        """Zeros, as SDXL has for an empty one."""
        return {name: torch.zeros_like(value) for name, value in self.text.items()}


class WordlessXL(Wordless, StableDiffusionXL):
    """SDXL without text encoders."""


class WordlessFlux(Wordless, Flux):
    """FLUX without text encoders."""


def sdxl(size: Size, dtype: torch.dtype, device: torch.device) -> Subject:
    """SDXL base 1.0; `tiny` has the same classes with few channels. On the device `meta` it has
    shapes and no numbers.
    """
    small = size == "tiny"
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_UNET | (TINY_UNET if small else {}))
        vae = AutoencoderKL(**DECODER | SDXL_DECODER | (TINY_DECODER if small else {}))
    pipe: Any = StableDiffusionXLPipeline(
        unet=_drawn(unet, dtype, device),
        vae=_drawn(vae, dtype, device),
        scheduler=EulerDiscreteScheduler(**SDXL_SCHEDULE),
        **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
        add_watermarker=False,
    )
    config = pipe.unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    shapes = {"text": (CLIP_TOKENS, config.cross_attention_dim), "pooled": (pooled,)}
    return _subject(pipe, pipe.unet, WordlessXL(pipe, pipe.vae), shapes)


def flux(size: Size, dtype: torch.dtype, device: torch.device) -> Subject:
    """FLUX.1 [dev], as `sdxl`."""
    small = size == "tiny"
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(
            **FLUX_TRANSFORMER | (TINY_TRANSFORMER if small else {})
        )
        vae = AutoencoderKL(**DECODER | FLUX_DECODER | (TINY_DECODER if small else {}))
    pipe: Any = FluxPipeline(
        transformer=_drawn(transformer, dtype, device),
        vae=_drawn(vae, dtype, device),
        scheduler=FlowMatchEulerDiscreteScheduler(**FLUX_SCHEDULE),
        **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
    )
    config = pipe.transformer.config
    shapes = {
        "text": (T5_TOKENS, config.joint_attention_dim),
        "pooled": (config.pooled_projection_dim,),
    }
    return _subject(pipe, pipe.transformer, WordlessFlux(pipe, pipe.vae), shapes)


ARCHITECTURES: Mapping[str, Callable[[Size, torch.dtype, torch.device], Subject]] = {
    "sdxl": sdxl,
    "flux": flux,
}


def _subject(
    pipe: Any,
    denoiser: Any,
    family: WordlessXL | WordlessFlux,
    shapes: Mapping[str, tuple[int, ...]],
) -> Subject:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    family.text = {
        name: torch.randn(shape, generator=generator).to(denoiser.device, denoiser.dtype)
        for name, shape in shapes.items()
    }
    return Subject(pipe, denoiser, family, family.text)


@torch.no_grad()
def _drawn(model: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The model on a device: norms that change nothing, no biases, and weights of variance
    1 / inputs.
    """
    # diffusers' own `to` warns of parts to keep in float32, even where there are none
    nn.Module.to(model, dtype).to_empty(device=device).requires_grad_(False).eval()
    if device.type == "meta":
        return model
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.fill_(0 if name.endswith("bias") else 1)
    return model
