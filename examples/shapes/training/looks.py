"""Imitations of the differences between a renderer's images and drawn ones."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from examples.shapes.umpire import Images, to_pixels


def augmented(pixels: Tensor) -> Tensor:
    """Noise, softness and contrast as a renderer may add them; nothing that moves an object."""
    pixels = pixels.contiguous()  # noise and pooling are three times as fast on it
    each = (len(pixels), 1, 1, 1)
    soft = avg_pool2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.lerp(pixels, soft, torch.rand(each) * (torch.rand(each) < 0.4))
    tint = 0.04 * torch.randn(len(pixels), 3, 1, 1)
    noise = 0.1 * torch.rand(each) ** 2 * torch.randn_like(pixels)
    return pixels * (1 + 0.04 * torch.randn(each)) + tint + noise


def load_vae(folder: Path) -> AutoencoderKL:
    """An autoencoder in float32, to use only."""
    vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


@torch.inference_mode()
def through_vae(images: Images, vae: AutoencoderKL, noise: float = 0.12) -> Images:
    """The images encoded, disturbed by up to `noise` and decoded; all uint8 [n, 64, 64, 3]."""
    parts = []
    for part in np.array_split(images, max(1, len(images) // 64)):
        latents = vae.encode(to_pixels(part)).latent_dist.mode()
        amount = noise * torch.rand(len(part), 1, 1, 1)
        parts.append(decoded(latents + amount * torch.randn_like(latents), vae))
    return np.concatenate(parts)


@torch.inference_mode()
def decoded(latents: Tensor, vae: AutoencoderKL) -> Images:
    """The images uint8 [n, 64, 64, 3] of latents [n, 4, 16, 16]."""
    pixels = vae.decode(latents).sample.clamp(-1, 1).add(1).mul(127.5).round()
    return np.ascontiguousarray(pixels.byte().permute(0, 2, 3, 1).numpy())
