"""Train the image adapter: an image beside the prompt decides what the prompt leaves open.

    python -m examples.shapes.training.renderer.adapter --out FILE.safetensors
        --pipeline DIR --judge DIR

The format is that of IP-Adapter (Ye et al. 2023): the judge's embedding of the reference becomes
four tokens that the UNet attends to with keys and values of their own, which start as copies of
those for text. Only these learn. References are other images of the same scene, or images that
share with it only what the prompt does not say; one in ten is missing.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import ImageProjection
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from examples.shapes import world
from examples.shapes.measure.judge import Judge
from examples.shapes.training import common, looks, painter
from examples.shapes.training.painter import Painter
from examples.shapes.training.renderer.unet import sample_times

BATCH, TOKENS, WIDTH = 32, 4, 128
EMBEDDING_SCALE = math.sqrt(WIDTH)
SAME, MISSING = 0.6, 0.1
_SAID = {"colour": 0.3, "background": 0.4, "size": 0.6, "position": 0.6, "arrangement": 0.9}


@dataclass(frozen=True)
class References:
    """Prompts, the latents that they ask for, and the embeddings of their reference images."""

    prompts: list[str]
    latents: Tensor
    embeddings: Tensor


def references(maker: Painter, judge: Judge, count: int, rng: np.random.Generator) -> References:
    """Fresh scenes, each with a reference for what its prompt leaves open."""
    scenes = [world.sample_scene(rng, two=0.15) for _ in range(count)]
    said = [frozenset(k for k, p in _SAID.items() if rng.random() < p) for _ in scenes]
    shown = [s if rng.random() < SAME else _sharing(s, rng) for s in scenes]
    images = np.stack([world.draw(scene, rng) for scene in shown])
    half = slice(0, count // 2)
    images[half] = looks.through_vae(images[half], maker.pipe.vae)
    drawn = np.stack([world.draw(scene, rng) for scene in scenes])
    latents = torch.cat([maker.latents(part) for part in np.array_split(drawn, count // 50 + 1)])
    prompts = [world.prompt(scene, names) for scene, names in zip(scenes, said, strict=True)]
    return References(prompts, latents, judge.embed(images) * EMBEDDING_SCALE)


def _sharing(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    """Another scene with the colours and the background of this one."""
    other = world.sample_scene(rng, two=float(len(scene.things) == 2))
    pairs = zip(other.things, scene.things, strict=True)
    things = tuple(replace(new, colour=old.colour) for new, old in pairs)
    shared = replace(other, things=things, background=scene.background)
    return shared if world.is_legal(shared) else scene


def untrained(unet: UNet2DConditionModel) -> dict[str, dict[str, Tensor]]:
    """An adapter for the UNet in the form of `load_ip_adapter`: text's keys and values, copied."""
    width = unet.config.cross_attention_dim
    projection = ImageProjection(WIDTH, width, TOKENS).state_dict()
    state = {k.replace("image_embeds", "proj"): v for k, v in projection.items()}
    crossing = [m for name, m in unet.named_modules() if name.endswith("attn2")]
    copies = {}
    for i, attention in enumerate(_in_order(unet, crossing)):
        copies[f"{2 * i + 1}.to_k_ip.weight"] = attention.to_k.weight.detach().clone()
        copies[f"{2 * i + 1}.to_v_ip.weight"] = attention.to_v.weight.detach().clone()
    return {"image_proj": state, "ip_adapter": copies}


def _in_order(unet: UNet2DConditionModel, crossing: list[nn.Module]) -> list[nn.Module]:
    """Cross-attentions in the order in which adapters number them: that of `attn_processors`."""
    known = {id(module.processor): module for module in crossing}
    return [known[id(p)] for p in unet.attn_processors.values() if id(p) in known]


def attach(maker: Painter, state: dict[str, dict[str, Tensor]]) -> list[nn.Parameter]:
    """Load the adapter into the pipeline; what of it may learn."""
    maker.pipe.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None,
                               low_cpu_mem_usage=False)  # fmt: skip
    unet = maker.pipe.unet
    learning = list(unet.encoder_hid_proj.parameters())
    learning += [p for name, p in unet.named_parameters() if "_ip." in name]
    for parameter in learning:
        parameter.requires_grad_(True)
    return learning


def detached(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The adapter of the UNet in the flat keys of the file."""
    projection = unet.encoder_hid_proj.image_projection_layers[0].state_dict()
    flat = {f"image_proj.{k.replace('image_embeds', 'proj')}": v for k, v in projection.items()}
    for number, processor in enumerate(unet.attn_processors.values()):
        for kind in ("k", "v"):
            if hasattr(processor, f"to_{kind}_ip"):
                layers = getattr(processor, f"to_{kind}_ip")
                flat[f"ip_adapter.{number}.to_{kind}_ip.weight"] = layers[0].weight
    return {name: value.detach().half().contiguous() for name, value in flat.items()}


def loss_of(maker: Painter, batch: References) -> Tensor:
    """Mean squared error of the predicted velocity."""
    unet, scheduler, count = maker.pipe.unet, maker.scheduler, len(batch.prompts)
    times, noise = sample_times(count), torch.randn_like(batch.latents)
    prompts = [text if torch.rand(()) >= MISSING else "" for text in batch.prompts]
    kept = (torch.rand(count, 1) >= MISSING).float()
    velocity = unet(
        scheduler.add_noise(batch.latents, noise, times),
        times,
        encoder_hidden_states=maker.states(prompts),
        added_cond_kwargs={"image_embeds": [(kept * batch.embeddings)[:, None]]},
    ).sample
    return mse_loss(velocity, scheduler.get_velocity(batch.latents, noise, times))


def train(
    maker: Painter, known: References, budget: common.Budget, rng: np.random.Generator
) -> None:
    """Teach the adapter in place."""
    learning = attach(maker, untrained(maker.pipe.unet))
    optimizer = torch.optim.AdamW(learning, lr=1.5e-3, weight_decay=0.01)
    losses: list[float] = []
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        at = rng.integers(len(known.prompts), size=BATCH).tolist()
        prompts = [known.prompts[i] for i in at]
        loss = loss_of(maker, References(prompts, known.latents[at], known.embeddings[at]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0:
            common.log(step, budget, loss=float(np.mean(losses[-100:])))


def main() -> None:
    """Train and save; `measure.adapter` says how well colours follow."""
    parser = common.arguments(__doc__, seconds=540)
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--pool", type=int, default=5000)
    given = parser.parse_args()
    rng = common.seeded(9000 + given.seed)
    maker = painter.load(given.pipeline)
    known = references(maker, Judge(given.judge), given.pool, rng)
    train(maker, known, common.Budget(given.seconds, given.steps), rng)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(detached(maker.pipe.unet), given.out)


if __name__ == "__main__":
    main()
