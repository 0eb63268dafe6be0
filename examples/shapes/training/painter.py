"""A renderer taken apart: to start from an image, to stop early, to look in between."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from examples.shapes.training import looks
from examples.shapes.umpire import Images, to_pixels


class Painter:
    """The parts of a Stable Diffusion pipeline in float32, sampled with its own scheduler."""

    def __init__(self, pipe: StableDiffusionPipeline, steps: int = 20) -> None:
        self.pipe = pipe.to(dtype=torch.float32)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.eval().requires_grad_(False)
        self.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        self.scheduler.set_timesteps(steps)

    def states(self, prompts: list[str]) -> Tensor:
        """The text encoder's states for the prompts, [n, 48, 96]."""
        ids = self.pipe.tokenizer(
            prompts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            return self.pipe.text_encoder(ids).last_hidden_state

    def latents(self, images: Images) -> Tensor:
        """Latents [n, 4, 16, 16] of images uint8 [n, 64, 64, 3]."""
        with torch.no_grad():
            return self.pipe.vae.encode(to_pixels(images)).latent_dist.mode()

    def decoded(self, latents: Tensor) -> Images:
        """Images uint8 [n, 64, 64, 3] of latents."""
        return looks.decoded(latents, self.pipe.vae)

    def noised(self, latents: Tensor, start: int) -> Tensor:
        """The latents as they would be before step `start`."""
        times = self.scheduler.timesteps[start].expand(len(latents))
        return self.scheduler.add_noise(latents, torch.randn_like(latents), times)

    @torch.inference_mode()
    def denoise(
        self, noisy: Tensor, states: Tensor, guidance: float = 1.0, start: int = 0
    ) -> Iterator[Tensor]:
        """After each step from `start` on, the estimate of the finished latents; the last is final.

        Guidance above 1 is classifier-free, against the empty prompt.
        """
        guided = guidance > 1
        if guided:
            states = torch.cat([self.states([""]).expand_as(states), states])
        for time in self.scheduler.timesteps[start:]:
            twice = torch.cat([noisy, noisy]) if guided else noisy
            velocity = self.pipe.unet(twice, time, encoder_hidden_states=states).sample
            if guided:
                without, with_text = velocity.chunk(2)
                velocity = without + guidance * (with_text - without)
            step = self.scheduler.step(velocity, time, noisy)
            noisy = step.prev_sample
            yield step.pred_original_sample

    def paint(self, prompts: list[str], guidance: float = 4.0) -> Images:
        """One image per prompt, from torch's own random numbers."""
        noise = torch.randn(len(prompts), 4, 16, 16)
        return self.decoded(last(self.denoise(noise, self.states(prompts), guidance)))


def last(estimates: Iterator[Tensor]) -> Tensor:
    """The final latents."""
    *_, final = estimates
    return final


def load(pipeline: Path, unet: Path | None = None, steps: int = 20) -> Painter:
    """The pipeline in a folder, with another UNet where one is given."""
    parts = {}
    if unet is not None:
        parts["unet"] = UNet2DConditionModel.from_pretrained(unet, use_safetensors=True)
    pipe = StableDiffusionPipeline.from_pretrained(
        pipeline, use_safetensors=True, safety_checker=None, requires_safety_checker=False, **parts
    )
    return Painter(pipe, steps)
