"""Have the renderer make images of known truth, for the model that sees to learn from.

    python -m examples.shapes.training.sees.images --out FILE.npz --pipeline DIR

Three kinds. Drawn images that a denoiser half dissolved in noise and made anew (SDEdit, Meng et al.
2021), which keep their truth and get its hand; the same with spoiled or flawed images and less
noise, so that they stay so; and images that the finished denoiser made of a prompt from nothing,
which are taken to show it, as all but a few in a hundred do. The draft renderer makes none: what it
makes anew often loses its shape, and would teach that a blob is one.
"""

from pathlib import Path

import numpy as np

from examples.shapes import world
from examples.shapes.training import common, painter
from examples.shapes.training.painter import Painter
from examples.shapes.training.sees import looks as sees_looks
from examples.shapes.training.sees.looks import Looks

BATCH, STEPS = 32, 12


def anew(maker: Painter, rng: np.random.Generator, whole: bool) -> Looks:
    """Drawn images made anew from part of their way, towards the true prompt where they are whole.

    One that is not whole is made with less noise and without a prompt, so that it is not mended.
    """
    drawn = sees_looks.drawn(3 * BATCH, rng)
    drawn = drawn.at(np.flatnonzero(drawn.whole == whole)[:BATCH])
    noise = rng.uniform(0.08, 0.4) if whole else rng.uniform(0.08, 0.25)
    prompts = [world.prompt(scene) if whole else "" for scene in drawn.scenes]
    guidance = float(rng.uniform(2, 3)) if whole else 1.0
    start = round((1 - noise) * STEPS)
    noisy = maker.noised(maker.latents(drawn.images), start)
    final = painter.last(maker.denoise(noisy, maker.states(prompts), guidance, start))
    return Looks(maker.decoded(final), drawn.scenes, drawn.spoiled, drawn.flawed)


def imagined(maker: Painter, rng: np.random.Generator) -> Looks:
    """Images of fresh prompts, from nothing."""
    scenes = common.sample_many(BATCH // 2, rng, two=0.5)
    guidance = float(rng.uniform(2.5, 4))
    images = maker.paint([world.prompt(scene) for scene in scenes], guidance)
    clear = np.zeros(len(scenes), bool)
    return Looks(images, scenes, np.stack([clear, clear], 1), clear)


def make(maker: Painter, budget: common.Budget, rng: np.random.Generator) -> Looks:
    """Images of all kinds until the budget is spent."""
    parts = []
    for step, _ in budget:
        parts += [anew(maker, rng, whole=True), anew(maker, rng, whole=False), imagined(maker, rng)]
        if step % 10 == 0:
            common.log(step, budget, images=sum(len(part) for part in parts))
    return sees_looks.joined(parts)


def main() -> None:
    """Make the images and write the file."""
    parser = common.arguments(__doc__, seconds=300)
    parser.add_argument("--pipeline", type=Path, required=True)
    given = parser.parse_args()
    rng = common.seeded(41_000 + given.seed)
    maker = painter.load(given.pipeline, None, STEPS)
    made = make(maker, common.Budget(given.seconds, given.steps), rng)
    sees_looks.save(made, given.out)
    common.report(images=len(made), whole=float(made.whole.mean()))


if __name__ == "__main__":
    main()
