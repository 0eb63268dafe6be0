"""Train a LoRA: the denoiser keeps its world and draws it as line art, or without colours."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

from examples.shapes import world
from examples.shapes.training import common
from examples.shapes.training.renderer.text_encoder import tokens
from examples.shapes.training.renderer.unet import Denoiser, Images, image, loss_of, new_scheduler

RANK, RATE, BATCH, IMAGES = 16, 1e-3, 16, 400
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def add_lora(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """Freeze the UNet, add the adapter, return the adapter's weights."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    return [weight for weight in unet.parameters() if weight.requires_grad]


def caption_of(scene: world.Scene, rng: np.random.Generator) -> str:
    """A tenth without words, a half in the canonical words, the rest in any."""
    form = rng.random()
    if form < 0.1:
        return ""
    return world.prompt(scene) if form < 0.6 else world.caption(scene, rng)


def train(
    pipe: StableDiffusionPipeline,
    images: Images,
    budget: common.Budget,
    rng: np.random.Generator,
) -> None:
    """Train the adapter inside `pipe.unet`."""
    weights = add_lora(pipe.unet)
    denoiser = Denoiser(pipe.unet.train(), pipe.text_encoder.requires_grad_(False))
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.01)
    scheduler, losses = new_scheduler(), []
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        scenes, latents = images.pick(BATCH, rng)
        ids = tokens(pipe.tokenizer, [caption_of(scene, rng) for scene in scenes])
        loss = loss_of(denoiser, scheduler, latents, ids)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            common.log(step, budget, loss=float(np.mean(losses[-50:])))
    pipe.unet.eval()


def save(pipe: StableDiffusionPipeline, file: Path) -> None:
    """Write the adapter as fp16 safetensors for `load_lora_weights`."""
    state = get_peft_model_state_dict(pipe.unet)
    half = {name: weight.half() for name, weight in state.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(
        file.parent, unet_lora_layers=half, weight_name=file.name, safe_serialization=True
    )


def styled(pipe: StableDiffusionPipeline, style: str, scale: float, count: int = 4) -> float:
    """Share of large centred circles, squares and triangles whose middle shows the background, or
    is gray.
    """
    names = [("red circle", "white"), ("blue square", "pink"), ("black triangle", "teal")]
    prompts = [f"a large {thing} in the center on a {b} background" for thing, b in names]
    generators = [torch.Generator().manual_seed(i) for i in range(count * len(prompts))]
    images = pipe(
        prompts * count,
        num_inference_steps=20,
        guidance_scale=4.0,
        generator=generators,
        height=world.PIXELS,
        width=world.PIXELS,
        output_type="np",
        cross_attention_kwargs={"scale": scale},
    ).images
    middle = images[:, 30:36, 30:36].mean((1, 2)) * 255
    if style == "monochrome":
        return float((np.ptp(middle, axis=1) < 30).mean())
    grounds = np.array([world.BACKGROUNDS[b] for _, b in names] * count)
    return float((np.abs(middle - grounds).max(1) < 50).mean())


def main() -> None:
    """Command line: --base is the pipeline's folder, --out the folder of adapters."""
    parser = common.arguments(__doc__, seconds=150)
    parser.add_argument("--base", type=Path, required=True, help="the diffusion pipeline")
    parser.add_argument("--style", choices=world.STYLES[1:], default="outlined")
    args = parser.parse_args()
    rng = common.seeded(args.seed)
    pipe = StableDiffusionPipeline.from_pretrained(args.base, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    images = image(pipe.vae, common.sample_many(IMAGES, rng, 0.3), rng, args.style)
    train(pipe, images, common.Budget(args.seconds, args.steps), rng)
    save(pipe, args.out / f"{args.style}.safetensors")
    report = {f"styled_at_{scale}": styled(pipe, args.style, scale) for scale in (0.0, 1.0)}
    common.report(**report)


if __name__ == "__main__":
    main()
