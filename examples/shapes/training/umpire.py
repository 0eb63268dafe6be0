"""Train the umpire on drawn images, failed ones, and what the autoencoder makes of both.

python -m examples.shapes.training.umpire --out DIR [--vae DIR] [--start DIR]
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from examples.shapes import world
from examples.shapes.training import common, damage
from examples.shapes.training.looks import augmented, load_vae, through_vae
from examples.shapes.umpire import NONE, TRAITS, Umpire, labels, load, to_pixels

BATCH = 96
WIDTHS, HIDDEN = (24, 48, 72, 80), 128


@dataclass(frozen=True)
class Examples:
    """Images uint8 [n, 64, 64, 3] and their labels [n, traits]."""

    images: np.ndarray
    labels: Tensor


def examples(count: int, rng: np.random.Generator, spoiled: float = 0.3) -> Examples:
    """Fresh images, the share `spoiled` of them with an object that has no clear shape."""
    drawn = [_example(rng, spoiled) for _ in range(count)]
    return Examples(np.stack([p for p, _ in drawn]), torch.tensor([row for _, row in drawn]))


def _example(rng: np.random.Generator, spoiled: float) -> tuple[world.ImageArray, list[int]]:
    scene = world.sample_scene(rng, two=0.45)
    if rng.random() < spoiled:
        image, which = damage.spoil(scene, rng)
        return image, labels(scene, which)
    style = "outlined" if rng.random() < 0.06 else "filled"
    image = world.draw(scene, rng, style)
    return damage.wobble(image, rng) if rng.random() < 0.35 else image, labels(scene)


def loss(logits: dict[str, Tensor], truth: Tensor) -> Tensor:
    """The summed cross-entropies of the traits that each scene has."""
    columns = zip(logits.values(), truth.T, strict=True)
    return torch.stack([cross_entropy(x.float(), y, ignore_index=-1) for x, y in columns]).sum()


def train(
    umpire: Umpire,
    known: Examples,
    budget: common.Budget,
    vae: AutoencoderKL | None,
    rng: np.random.Generator,
    rate: float,
) -> Umpire:
    """The umpire's average after training on images, some of which are renewed at times."""
    umpire = umpire.train().to(memory_format=torch.channels_last)
    pool = len(known.images)
    average = common.moving_average(umpire, 0.99)
    optimizer = torch.optim.AdamW(umpire.parameters(), lr=rate, weight_decay=0.02)
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        if step % 20 == 19:
            known = _renewed(known, pool // 160, rng, vae)
        at = rng.integers(len(known.images), size=BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            logits = umpire(augmented(to_pixels(known.images[at])))
        error = loss(logits, known.labels[at])
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        average.update_parameters(umpire)
        if step % 100 == 0:
            common.log(step, budget, loss=error.item())
    return average.module.eval()


def _pooled(count: int, rng: np.random.Generator, vae: AutoencoderKL | None) -> Examples:
    fresh = examples(count, rng)
    if vae is not None:
        half = slice(0, count // 2)
        fresh.images[half] = through_vae(fresh.images[half], vae)
    return fresh


def _renewed(
    known: Examples, count: int, rng: np.random.Generator, vae: AutoencoderKL | None
) -> Examples:
    fresh = _pooled(count, rng, vae)
    at = rng.choice(len(known.images), count, replace=False)
    known.images[at], known.labels[at] = fresh.images, fresh.labels
    return known


def accuracy(umpire: Umpire, known: Examples) -> dict[str, float]:
    """Share right per trait; of clear shapes the share refused, of unclear ones the share named."""
    with torch.inference_mode():
        logits = umpire(to_pixels(known.images))
    figures = {}
    for (name, values), truth in zip(logits.items(), known.labels.T, strict=True):
        has = truth >= 0
        figures[name] = _share(values.argmax(1)[has] == truth[has])
    shapes = torch.cat([logits[f"shape{i}"].argmax(1) for i in (0, 1)])
    truths = torch.cat([known.labels[:, list(TRAITS).index(f"shape{i}")] for i in (0, 1)])
    none = TRAITS["shape0"].index(NONE)
    figures["clear_refused"] = _share(shapes[(truths >= 0) & (truths != none)] == none)
    figures["unclear_named"] = _share(shapes[truths == none] != none)
    return figures


def _share(hits: Tensor) -> float:
    return round(hits.float().mean().item(), 4)


def save(umpire: Umpire, folder: Path) -> None:
    """Write umpire.json and fp16 umpire.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "umpire.json").write_text(json.dumps({"widths": WIDTHS, "hidden": HIDDEN}) + "\n")
    weights = copy.deepcopy(umpire).half().state_dict()
    kept = {k: v.contiguous() for k, v in weights.items() if "num_batches" not in k}
    save_file(kept, folder / "umpire.safetensors")


def main() -> None:
    """Train, save and print the held-out accuracy as JSON."""
    parser = common.arguments(__doc__, seconds=200)
    parser.add_argument("--vae", type=Path, help="autoencoder to see half of the pictures through")
    parser.add_argument("--start", type=Path, help="an earlier umpire to go on from")
    parser.add_argument("--pool", type=int, default=16000)
    given = parser.parse_args()
    vae = given.vae and load_vae(given.vae)
    rng = common.seeded(7000 + given.seed)
    umpire = load(given.start) if given.start else Umpire(WIDTHS, HIDDEN)
    known = _pooled(given.pool, rng, vae)
    budget = common.Budget(given.seconds, given.steps)
    rate = 1e-3 if given.start else 3e-3
    umpire = train(umpire, known, budget, vae, rng, rate)
    save(umpire, given.out)
    held_out = examples(4000, np.random.default_rng(990_000 + given.seed))
    common.report(**accuracy(umpire, held_out))


if __name__ == "__main__":
    main()
