"""Have a renderer make images whose truth is known, for the judge to learn from.

    python -m examples.shapes.training.judge.images --out FILE.npz --pipeline DIR --judge DIR
        [--unet DIR]

Three kinds: drawn images that the renderer half dissolved in noise and made anew (SDEdit, Meng et
al. 2021), which keep their truth and get its hand; the same with failed images and less noise;
and images of its own, kept where an earlier judge agrees with the prompt or is sure of one thing
that is otherwise. The last also give previews, which are to embed as the finished images do.
"""

from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor

from examples.shapes import world
from examples.shapes.training import common, painter
from examples.shapes.training.judge import data as judge_data
from examples.shapes.training.judge import generated
from examples.shapes.training.judge.data import Known
from examples.shapes.training.judge.generated import Generated, Previews
from examples.shapes.training.painter import Painter
from examples.shapes.umpire import Images, to_pixels

BATCH, IMAGINED, STEPS = 32, 16, 12
SURE = 0.6


def redrawn(maker: Painter, rng: np.random.Generator) -> Known:
    """Drawn images made anew from the middle, with the true prompt or with none."""
    drawn = judge_data.drawn(BATCH, rng, two=0.55, spoiled=0)
    prompts = [world.prompt(s) if rng.random() < 0.5 else "" for s in drawn.scenes]
    return Known(_anew(maker, drawn, prompts, rng.uniform(0.25, 0.55)), drawn.scenes, drawn.clear)


def failed(maker: Painter, rng: np.random.Generator) -> Known:
    """Failed images made anew from near the end, so that they stay failed."""
    drawn = judge_data.drawn(BATCH, rng, two=0.55, spoiled=1)
    images = _anew(maker, drawn, [""] * BATCH, rng.uniform(0.1, 0.3))
    return Known(images, drawn.scenes, drawn.clear)


def _anew(maker: Painter, drawn: Known, prompts: list[str], noise: float) -> Images:
    start = round((1 - noise) * STEPS)
    noisy = maker.noised(maker.latents(drawn.images), start)
    final = painter.last(maker.denoise(noisy, maker.states(prompts), start=start))
    return maker.decoded(final)


def imagined(maker: Painter, rng: np.random.Generator) -> tuple[list[world.Scene], Previews]:
    """Scenes with the images of their prompts, and two estimates of each on the way there."""
    scenes = common.sample_many(IMAGINED, rng, two=0.55)
    noise, states = (
        torch.randn(IMAGINED, 4, 16, 16),
        maker.states([world.prompt(s) for s in scenes]),
    )
    estimates = list(maker.denoise(noise, states, guidance=float(rng.uniform(2, 5))))
    chosen = rng.choice(np.arange(2, STEPS - 2), 2, replace=False)
    early = np.concatenate([maker.decoded(estimates[i]) for i in chosen])
    finals = np.concatenate([maker.decoded(estimates[-1])] * 2)
    return scenes, Previews(early, finals)


class Reader:
    """An earlier judge, asked which of a few sentences is true."""

    def __init__(self, folder: Path) -> None:
        self.judge = open_clip.create_model(f"local-dir:{folder}").eval()
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.inference_mode()
    def chances(self, image: Tensor, prompts: list[str]) -> Tensor:
        """The chance that each prompt is true of the embedded image."""
        text = self.judge.encode_text(self.tokenizer(prompts), normalize=True)
        return torch.sigmoid(self.judge.logit_scale.exp() * text @ image + self.judge.logit_bias)

    def settled(self, scenes: list[world.Scene], images: Images) -> Known:
        """The images that surely show their scene, or surely one that differs in one thing."""
        with torch.inference_mode():
            embedded = self.judge.encode_image(to_pixels(images), normalize=True)
        kept: list[tuple[int, world.Scene]] = []
        for i, scene in enumerate(scenes):
            options = [scene, *judge_data.neighbours(scene)]
            chances = self.chances(embedded[i], [world.prompt(s) for s in options])
            best = int(chances.argmax())
            if chances[best] > SURE and (best == 0 or chances[0] < 1 - SURE):
                kept.append((i, options[best]))
        at = [i for i, _ in kept]
        return Known(images[at], [scene for _, scene in kept], np.ones(len(at), bool))


def make(
    maker: Painter, reader: Reader, budget: common.Budget, rng: np.random.Generator
) -> Generated:
    """Images of all kinds until the budget is spent."""
    parts, previews = [], []
    for step, _ in budget:
        parts += [redrawn(maker, rng) for _ in range(3)]
        parts.append(failed(maker, rng))
        scenes, looks = imagined(maker, rng)
        parts.append(reader.settled(scenes, looks.finals[:IMAGINED]))
        previews.append(looks)
        if step % 10 == 0:
            common.log(step, budget, kept=len(parts[-1].scenes) / IMAGINED)
    early = np.concatenate([p.early for p in previews])
    return Generated(
        judge_data.joined(parts), Previews(early, np.concatenate([p.finals for p in previews]))
    )


def main() -> None:
    """Make the images and write the file."""
    parser = common.arguments(__doc__, seconds=300)
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--unet", type=Path, help="use this UNet in place of the pipeline's")
    given = parser.parse_args()
    rng = common.seeded(5000 + given.seed)
    maker = painter.load(given.pipeline, given.unet, STEPS)
    reader = Reader(given.judge)
    made = make(maker, reader, common.Budget(given.seconds, given.steps), rng)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    generated.save(made, given.out)
    common.report(images=len(made.known.scenes), previews=len(made.previews.early))


if __name__ == "__main__":
    main()
