"""Train the ControlNet of edges: lines decide shape and place, the prompt the rest.

Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models": a trained copy of
the denoiser's first half reads the edges and adds to the denoiser's features, through layers that
are zero at first. The denoiser itself stays as it is. Half of the prompts are empty, so that the
lines alone have to say the shape, and the others say a part of the scene.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from examples.shapes import world
from examples.shapes.training import common, painter
from examples.shapes.training.painter import Painter
from examples.shapes.training.renderer.unet import sample_times
from pipeline.media.edges import canny

BATCH, RATE, DECAY, EMPTY = 24, 1e-3, 0.998, 0.5
HINT_CHANNELS = (16, 24, 32)
"""Each but the first halves the edges' sides, down to those of the latents."""
_SAID = {"colour": 0.9, "background": 0.7, "size": 0.3, "position": 0.3, "arrangement": 0.5}


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet for the UNet: a copy of its first half behind layers of zeros.

    `ControlNetModel.from_unet` would leave out the number of heads that pool the text.
    """
    known = inspect.signature(ControlNetModel.__init__).parameters
    config = {name: value for name, value in unet.config.items() if name in known}
    controlnet = ControlNetModel(**config, conditioning_embedding_out_channels=HINT_CHANNELS)
    controlnet.load_state_dict(unet.state_dict(), strict=False)
    return controlnet


@dataclass(frozen=True)
class Drawn:
    """Scenes, their latents [n, 4, 16, 16] and the edges of their images [n, 3, 64, 64]."""

    scenes: list[world.Scene]
    latents: Tensor
    edges: Tensor

    def batch(self, rng: np.random.Generator) -> tuple[list[str], Tensor, Tensor]:
        """Prompts, latents and edges of some at random."""
        at = rng.integers(len(self.scenes), size=BATCH).tolist()
        prompts = [_prompt(self.scenes[i], rng) for i in at]
        return prompts, self.latents[at].float(), self.edges[at].float()


def drawn(maker: Painter, count: int, rng: np.random.Generator) -> Drawn:
    """Fresh scenes, a quarter of them with two objects."""
    scenes = common.sample_many(count, rng, two=0.25)
    latents, edges = [], []
    for start in range(0, count, 100):
        images = np.stack([world.draw(scene, rng) for scene in scenes[start : start + 100]])
        lines = np.stack([canny(image / np.float32(255)) for image in images])
        latents.append(maker.latents(images).half())
        edges.append(torch.from_numpy(lines).permute(0, 3, 1, 2).to(torch.uint8))
    return Drawn(scenes, torch.cat(latents), torch.cat(edges))


def _prompt(scene: world.Scene, rng: np.random.Generator) -> str:
    if rng.random() < EMPTY:
        return ""
    return world.prompt(scene, frozenset(name for name, p in _SAID.items() if rng.random() < p))


def loss_of(
    maker: Painter, controlnet: ControlNetModel, prompts: list[str], latents: Tensor, edges: Tensor
) -> Tensor:
    """Mean squared error of the predicted velocity."""
    times, noise = sample_times(len(latents)), torch.randn_like(latents)
    noisy = maker.scheduler.add_noise(latents, noise, times)
    states = maker.states(prompts)
    down, middle = controlnet(
        noisy, times, encoder_hidden_states=states, controlnet_cond=edges, return_dict=False
    )
    velocity = maker.pipe.unet(
        noisy,
        times,
        encoder_hidden_states=states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    return mse_loss(velocity, maker.scheduler.get_velocity(latents, noise, times))


def train(
    maker: Painter, known: Drawn, budget: common.Budget, rng: np.random.Generator
) -> ControlNetModel:
    """The averaged ControlNet."""
    controlnet = new_controlnet(maker.pipe.unet).train()
    average = common.moving_average(controlnet, DECAY)
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=RATE, weight_decay=0.01)
    losses: list[float] = []
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        loss = loss_of(maker, controlnet, *known.batch(rng))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(controlnet.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(controlnet)
        losses.append(loss.item())
        if step % 100 == 0:
            common.log(step, budget, loss=float(np.mean(losses[-100:])))
    common.report(loss=float(np.mean(losses[-100:])))
    return average.module


def main() -> None:
    """Train and save; `benchmarks.adapters` says how well places follow."""
    parser = common.arguments(__doc__, seconds=1500)
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--pool", type=int, default=8000)
    given = parser.parse_args()
    rng = common.seeded(12_000 + given.seed)
    maker = painter.load(given.pipeline)
    known = drawn(maker, given.pool, rng)
    common.save_half(train(maker, known, common.Budget(given.seconds, given.steps), rng), given.out)


if __name__ == "__main__":
    main()
