"""Train the denoiser on latents of drawn scenes and captions that are made up on the fly.

v-prediction with a zero terminal signal-to-noise ratio (Lin et al. 2023, "Common diffusion noise
schedules and sample steps are flawed"), unweighted, an exponential moving average of the weights.
The text encoder learns along slowly and stands still from `FREEZE` on, so the draft that is saved
soon after works with the final text encoder.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from examples.shapes import world
from examples.shapes.training import common
from examples.shapes.training.renderer.text_encoder import tokens
from examples.shapes.training.renderer.vae import encode

BATCH, RATE, DECAY, UNCONDITIONAL = 32, 1.2e-3, 0.9985, 0.1
FREEZE, DRAFT, SNAPSHOTS = 0.25, 0.28, 12


def new_unet() -> UNet2DConditionModel:
    """An untrained denoiser of 2.8M weights; its text condition is also pooled into the time."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 80, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=96,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def new_scheduler() -> DDIMScheduler:
    """Zero terminal signal-to-noise, trailing steps: sampling starts where training did."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


@dataclass(frozen=True)
class Images:
    """Scenes and their latents, float16 [n, 4, 16, 16]."""

    scenes: list[world.Scene]
    latents: torch.Tensor

    def pick(self, count: int, rng: np.random.Generator) -> tuple[list[world.Scene], torch.Tensor]:
        """`count` of them at random."""
        chosen = rng.integers(len(self.scenes), size=count)
        return [self.scenes[i] for i in chosen], self.latents[chosen].float()


def image(
    vae: AutoencoderKL, scenes: list[world.Scene], rng: np.random.Generator, style: str = "filled"
) -> Images:
    """Draw and encode the scenes, a thousand at a time."""
    parts = []
    for start in range(0, len(scenes), 1000):
        drawn = common.draw_many(scenes[start : start + 1000], rng, style)
        parts.append(encode(vae, drawn).half())
    return Images(scenes, torch.cat(parts))


def singles(count: int, rng: np.random.Generator) -> list[world.Scene]:
    """Scenes of one object; small ones are harder and come more often, 3 in 5."""
    scenes = common.sample_many(2 * count, rng, two=0)
    small = [s for s in scenes if s.things[0].size == "small"][: count * 3 // 5]
    large = [s for s in scenes if s.things[0].size == "large"][: count - len(small)]
    return small + large


def share_of_two(progress: float) -> float:
    """Share of two-object scenes: few until single ones are learnt, then 40%."""
    return float(np.interp(progress, (0.12, 0.4), (0.16, 0.4)))


class Data:
    """Batches of latents and token ids."""

    def __init__(
        self,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizer,
        rng: np.random.Generator,
        one: int,
        two: int,
    ) -> None:
        self.rng, self.tokenizer = rng, tokenizer
        self.one = image(vae, singles(one, rng), rng)
        self.two = image(vae, common.sample_many(two, rng, two=1), rng)

    def batch(self, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [32, 4, 16, 16] and token ids [32, 48]."""
        pairs = int(self.rng.binomial(BATCH, share_of_two(progress)))
        scenes, latents = self.one.pick(BATCH - pairs, self.rng)
        more, others = self.two.pick(pairs, self.rng)
        captions = [self._caption(scene) for scene in scenes + more]
        return torch.cat([latents, others]), tokens(self.tokenizer, captions)

    def _caption(self, scene: world.Scene) -> str:
        if self.rng.random() < UNCONDITIONAL:
            return ""
        if self.rng.random() < 0.2:
            return world.prompt(scene)
        return world.caption(scene, self.rng)


def sample_times(count: int) -> torch.Tensor:
    """Timesteps in random order, one from each of `count` strata, noisy ones more often."""
    uniform = (torch.randperm(count) + torch.rand(count)) / count
    return (1000 * uniform**0.85).long().clamp(max=999)


class Denoiser(nn.Module):
    """UNet and text encoder as one module, so that one average covers both."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        states = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy, times, encoder_hidden_states=states).sample


def loss_of(
    denoiser: Denoiser, scheduler: DDIMScheduler, latents: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the predicted velocity."""
    times = sample_times(len(latents))
    noise = torch.randn_like(latents)
    noisy = scheduler.add_noise(latents, noise, times)
    velocity = scheduler.get_velocity(latents, noise, times)
    return functional.mse_loss(denoiser(noisy, times, ids), velocity)


@dataclass
class Trainer:
    """One run: a denoiser, its average, and when to save what."""

    denoiser: Denoiser
    data: Data
    out: Path

    def __post_init__(self) -> None:
        self.scheduler = new_scheduler()
        self.average = common.moving_average(self.denoiser, DECAY)
        text = {"params": list(self.denoiser.text_encoder.parameters()), "lr": RATE / 4}
        unet = {"params": list(self.denoiser.unet.parameters()), "lr": RATE}
        self.optimizer = torch.optim.AdamW([unet, text], weight_decay=0.01)
        self.held_out = self.data.batch(0.3)

    def run(self, budget: common.Budget) -> None:
        """Train, saving the averaged weights every twelfth and the draft at its time."""
        losses: list[float] = []
        due = [*(i / SNAPSHOTS for i in range(1, SNAPSHOTS)), DRAFT]
        for step, progress in budget:
            if progress >= FREEZE and self._text_learns:
                self.freeze_text()
            losses.append(self.step(progress))
            if step % 100 == 0:
                common.log(step, budget, loss=float(np.mean(losses[-100:])), progress=progress)
            for at in [at for at in due if at <= progress]:
                due.remove(at)
                common.log(step, budget, held_out=self.judge())
                self.save(self.out.parent / "draft-unet" if at == DRAFT else self.out / "unet")
        self.save(self.out / "unet")

    def step(self, progress: float) -> float:
        """One update; returns the loss."""
        common.set_rate(self.optimizer, common.warmup_cosine(progress))
        self.optimizer.param_groups[1]["lr"] *= max(0.0, 1 - progress / FREEZE)
        loss = loss_of(self.denoiser, self.scheduler, *self.data.batch(progress))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.denoiser)
        return loss.item()

    @property
    def _text_learns(self) -> bool:
        return next(self.denoiser.text_encoder.parameters()).requires_grad

    def freeze_text(self) -> None:
        """Go on with the averaged text encoder, unchanged from here."""
        averaged = self.average.module.text_encoder
        self.denoiser.text_encoder.load_state_dict(averaged.state_dict())
        self.denoiser.text_encoder.requires_grad_(False)
        common.save_half(averaged, self.out / "text_encoder")

    def judge(self) -> float:
        """Loss of the averaged weights on a fixed batch with fixed noise."""
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            losses = [
                loss_of(self.average.module, self.scheduler, *self.held_out) for _ in range(4)
            ]
        return torch.stack(losses).mean().item()

    def save(self, folder: Path) -> None:
        """The averaged UNet as fp16 safetensors."""
        common.save_half(self.average.module.unet, folder)


def assemble(folder: Path) -> None:
    """Complete a folder that holds the parts to one that StableDiffusionPipeline loads."""
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    for file in folder.rglob("*.safetensors"):
        common.halve(file)
    for file in folder.rglob("config.json"):
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)  # a path of this machine
        file.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Command line: reads vae/, tokenizer/, text_encoder/ in --out, completes the pipeline."""
    parser = common.arguments(__doc__, seconds=4500)
    parser.add_argument("--singles", type=int, default=16_000, help="one-object pictures")
    parser.add_argument("--doubles", type=int, default=28_000, help="two-object pictures")
    args = parser.parse_args()
    rng = common.seeded(args.seed)
    vae = AutoencoderKL.from_pretrained(args.out / "vae").requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(args.out / "text_encoder").float().train()
    data = Data(vae, tokenizer, rng, args.singles, args.doubles)
    trainer = Trainer(Denoiser(new_unet(), text_encoder), data, args.out)
    trainer.save(args.out / "unet")
    assemble(args.out)
    trainer.run(common.Budget(args.seconds, args.steps))
    assemble(args.out)
    common.report(held_out_loss=trainer.judge())


if __name__ == "__main__":
    main()
