"""Train the autoencoder's decoder further on fixed latents.

The latents stay as they are, so this runs beside the denoiser's training or after it.
"""

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from examples.shapes.training import common
from examples.shapes.training.renderer.vae import encode, psnr, training_images

NOISE, BATCH, IMAGES = 0.05, 12, 12_000


def train(
    vae: AutoencoderKL, seconds: float, steps: int | None, rng: np.random.Generator
) -> AutoencoderKL:
    """Train decoder and post-quantisation by AdamW in bf16; returns the averaged autoencoder."""
    images = training_images(IMAGES, rng)
    latents = encode(vae, images)
    held_out = training_images(64, rng)
    vae.requires_grad_(False)
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    average = common.moving_average(vae, 0.99)
    optimizer = torch.optim.AdamW(weights, lr=1.5e-3, weight_decay=1e-4)
    budget = common.Budget(seconds, steps)
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        chosen = torch.randint(len(images), (BATCH,))
        noisy = latents[chosen] + NOISE * torch.randn(BATCH, *latents.shape[1:])
        with torch.autocast("cpu", torch.bfloat16):
            decoded = vae.decode(noisy).sample
        loss = functional.mse_loss(decoded.float(), common.to_unit(images[chosen]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        average.update_parameters(vae)
        if step % 200 == 0:
            common.log(step, budget, loss=loss.item(), psnr=psnr(average.module, held_out)[0])
    return copy.deepcopy(average.module)


def main() -> None:
    """Command line: --out is the autoencoder's folder, read and written."""
    args = common.arguments(__doc__, seconds=400).parse_args()
    rng = common.seeded(args.seed)
    vae = AutoencoderKL.from_pretrained(args.out)
    before = psnr(vae, training_images(500, rng))[0]
    trained = train(vae, args.seconds, args.steps, rng)
    mean, worst = psnr(trained, training_images(500, rng))
    if mean > before:
        common.save_half(trained, args.out)
    common.report(psnr_before=before, psnr_mean=mean, psnr_worst=worst)


if __name__ == "__main__":
    main()
