"""Train the autoencoder: 64×64 images to 4×16×16 latents and back.

No KL term: with one, the whole image collapses into a single channel at this size. Instead three
channels are anchored to the whitened colours of 4×4 blocks, the fourth is free, and noise on the
latents keeps the decoder smooth. Mean and spread are folded into the quantisation convolutions, so
the latents are standard and `scaling_factor` is 1.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from examples.shapes.training import common

NOISE, LOG_VARIANCE, BATCH = 0.1, -5.0, 12


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder of 0.65M weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


class Anchor:
    """Whitened principal colours of 4×4 blocks: what the first three channels should hold."""

    def __init__(self, images: torch.Tensor) -> None:
        colours = self._blocks(images).permute(1, 0, 2, 3).flatten(1)
        self.mean = colours.mean(1)
        values, vectors = torch.linalg.eigh(torch.cov(colours))
        self.whiten = vectors.T / values.sqrt()[:, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, 3, 64, 64] to targets [n, 3, 16, 16] of zero mean and unit variance."""
        centred = self._blocks(images) - self.mean[:, None, None]
        return torch.einsum("ij,njhw->nihw", self.whiten, centred)

    @staticmethod
    def _blocks(images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(images, 4)


def loss_of(vae: AutoencoderKL, anchor: Anchor, images: torch.Tensor) -> torch.Tensor:
    """Reconstruction error under latent noise, plus two terms that hold the latents in place."""
    posterior = vae.encode(images).latent_dist
    latents = posterior.mean
    decoded = vae.decode(latents + NOISE * torch.randn_like(latents)).sample
    rebuilt = functional.mse_loss(decoded, images) + 0.1 * functional.l1_loss(decoded, images)
    anchored = functional.mse_loss(latents[:, :3], anchor(images))
    return rebuilt + 0.5 * anchored + 1e-3 * (posterior.logvar - LOG_VARIANCE).square().mean()


def encode(vae: AutoencoderKL, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """uint8 images [n, 3, 64, 64] to mean latents [n, 4, 16, 16]."""
    with torch.no_grad():
        parts = [vae.encode(common.to_unit(p)).latent_dist.mean for p in images.split(batch)]
    return torch.cat(parts)


def fold_statistics(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Rescale the quantisation convolutions in place so that latents have mean 0 and spread 1."""
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, back = vae.quant_conv, vae.post_quant_conv
    with torch.no_grad():
        back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
        back.weight *= spread[:, None, None]
        into.weight[:4] /= spread[:, None, None, None]
        into.bias[:4] = (into.bias[:4] - mean) / spread
        into.bias[4:] -= 2 * spread.log()


def psnr(vae: AutoencoderKL, images: torch.Tensor) -> tuple[float, float]:
    """Mean and worst peak signal to noise ratio in dB over uint8 images."""
    with torch.no_grad():
        decoded = vae.decode(encode(vae, images)).sample.clamp(-1, 1)
    error = (decoded - common.to_unit(images)).square().mean((1, 2, 3))
    decibel = 10 * torch.log10(4 / error)
    return decibel.mean().item(), decibel.min().item()


def training_images(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Half single, half double scenes; a tenth in outline, so that such styles survive too."""
    outlined = count // 10
    parts = zip(("filled", "outlined"), (count - outlined, outlined), strict=True)
    return torch.cat([common.draw_many(common.sample_many(n, rng, 0.5), rng, s) for s, n in parts])


def train(budget: common.Budget, rng: np.random.Generator) -> AutoencoderKL:
    """Train by AdamW in bf16 and return the averaged weights with the statistics folded in."""
    images = training_images(15_000, rng)
    held_out = training_images(256, rng)
    anchor = Anchor(common.to_unit(images[:2000]))
    vae = new_vae()
    average = common.moving_average(vae, 0.99)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        batch = common.to_unit(images[torch.randint(len(images), (BATCH,))])
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(vae, anchor, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(vae)
        if step % 200 == 0:
            common.log(step, budget, loss=loss.item(), psnr=psnr(vae, held_out[:32])[0])
    trained = copy.deepcopy(average.module)
    fold_statistics(trained, encode(trained, images[:4000]))
    return trained


def main() -> None:
    """Command line: train, save, report."""
    args = common.arguments(__doc__, seconds=400).parse_args()
    rng = common.seeded(args.seed)
    vae = train(common.Budget(args.seconds, args.steps), rng)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    common.save_half(vae, args.out)
    mean, worst = psnr(vae, training_images(500, rng))
    common.report(psnr_mean=mean, psnr_worst=worst)


if __name__ == "__main__":
    main()
