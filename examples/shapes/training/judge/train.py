"""Train the judge: a small OpenCLIP model that says how well a sentence fits an image.

    python -m examples.shapes.training.judge.train --out DIR --tokenizer DIR [--vae DIR]
        [--generated FILE] [--start DIR]

First the text tower learns beside a small network that embeds scenes, not images, which costs
next to nothing (`judge_text`). Then the image tower learns to embed an image where its scene is,
and the pairwise sigmoid loss of SigLIP (Zhai et al. 2023) over what really agrees, with sentences
that have one thing wrong in every batch, refines it against the text tower, which stands still.
Linear heads that read attributes off both make it learn sooner; they are thrown away.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from examples.shapes.training import common
from examples.shapes.training.judge import data as judge_data
from examples.shapes.training.judge import generated
from examples.shapes.training.judge import text as judge_text
from examples.shapes.training.judge.data import FIELDS, UNSAID, Known
from examples.shapes.training.judge.text import Texts, contrast
from examples.shapes.training.looks import augmented, load_vae, through_vae
from examples.shapes.umpire import to_pixels

BATCH, UNTRUE, RATE, DECAY = 64, 1, 2e-3, 0.995
WIDTH, CONTEXT = 128, 48
CONFIG = {
    "model_cfg": {
        "embed_dim": WIDTH,
        "vision_cfg": {"layers": [1, 2, 2, 1], "width": 20, "image_size": 64},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": 820,
            "width": WIDTH,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "tokenizer",
        },
        "init_logit_bias": -8.0,
        "init_logit_scale": float(np.log(14)),
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


class Trainer:
    """The image tower, its optimizer and average, and the text tower that it learns to meet."""

    def __init__(self, texts: Texts, rate: float) -> None:
        self.texts = texts
        self.tower: nn.Module = texts.judge.visual.to(memory_format=torch.channels_last)
        self.average = common.moving_average(self.tower, DECAY)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(values)) for values in FIELDS.values())
        learning = [*self.tower.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))

    def step(self, known: Known, previews: generated.Previews | None, rate: float,
             rng: np.random.Generator) -> dict[str, float]:  # fmt: skip
        """Learn from one batch; the losses."""
        common.set_rate(self.optimizer, rate)
        self.tower.train()
        parts = self._losses(known, rng)
        if previews is not None:
            parts["preview"] = self._foreseen(previews)
        self.optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.tower)
        return {name: part.item() for name, part in parts.items()}

    def _losses(self, known: Known, rng: np.random.Generator) -> dict[str, Tensor]:
        said = judge_text.sentences(known.scenes[::2], UNTRUE, rng)
        with torch.no_grad():
            text, aim = self.texts.text(said.texts), self.texts.scene(known.codes, known.clear)
        agree = judge_data.agreement(known.codes, said.codes) & known.clear[:, None]
        own = torch.zeros(agree.shape)
        own[::2] = said.own.float()
        image = self._embedded(known.images)
        scale = (self.texts.judge.logit_scale.exp().detach(), self.texts.judge.logit_bias.detach())
        return {
            "aim": 5 * (1 - cosine_similarity(image, aim)).mean(),
            "contrast": contrast(image, text, torch.from_numpy(agree), own, *scale),
            "seen": 0.2 * (self._read(image, known) + self._read(aim, known)),
        }

    def _read(self, embeddings: Tensor, known: Known) -> Tensor:
        """The loss of the heads on the attributes, without a failed image's shapes."""
        aims = torch.from_numpy(judge_text.visible(known.codes, known.clear)).T
        pairs = zip(self.heads, aims, strict=True)
        losses = [cross_entropy(h(embeddings), a, ignore_index=UNSAID, reduction="sum") / len(a)
                  for h, a in pairs]  # fmt: skip
        return torch.stack(losses).sum()

    def _foreseen(self, previews: generated.Previews) -> Tensor:
        """An early preview should embed as the finished image does, as far as it can be told."""
        with torch.no_grad():
            final = self.average.module.eval()(to_pixels(previews.finals))
        return 5 * (1 - cosine_similarity(self._embedded(previews.early), final)).mean()

    def _embedded(self, images: judge_data.Images) -> Tensor:
        pixels = augmented(to_pixels(images)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return self.tower(pixels).float()


def train(trainer: Trainer, budget: common.Budget, known: Known, given: generated.Generated | None,
          fresh: judge_data.Source, rng: np.random.Generator) -> CLIP:  # fmt: skip
    """Train on drawn images that are renewed bit by bit, and on generated ones where given."""
    for step, progress in budget:
        if step % 20 == 19:
            known.put(fresh(len(known.scenes) // 160, rng), rng)
        batch, previews = known.pick(BATCH, rng), None
        if given is not None:
            batch = judge_data.joined([batch.first(BATCH // 2), given.known.pick(BATCH // 2, rng)])
            previews = given.previews.pick(BATCH // 8, rng)
        figures = trainer.step(batch, previews, common.warmup_cosine(progress), rng)
        if step % 100 == 0:
            common.log(step, budget, **figures)
    trainer.texts.judge.visual = trainer.average.module
    return trainer.texts.judge.eval()


def new_judge() -> CLIP:
    """An untrained judge."""
    model = CONFIG["model_cfg"]
    return CLIP(
        model["embed_dim"],
        model["vision_cfg"],
        {k: v for k, v in model["text_cfg"].items() if k != "hf_tokenizer_name"},
        init_logit_scale=model["init_logit_scale"],
        init_logit_bias=model["init_logit_bias"],
    )


def save(judge: CLIP, tokenizer: Path, folder: Path) -> None:
    """Write a folder that `open_clip.create_model_and_transforms("local-dir:...")` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    weights = {k: v.half().contiguous() for k, v in judge.state_dict().items()}
    kept = {k: v for k, v in weights.items() if "num_batches" not in k}
    save_file(kept, folder / "open_clip_model.safetensors")


def scenes_file(folder: Path) -> Path:
    """Beside the model, of which it is no part: what going on with the training needs."""
    return folder.with_name(f"{folder.name}-scenes.safetensors")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = common.arguments(__doc__, seconds=1500)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="autoencoder to see half of the pictures through")
    parser.add_argument("--generated", type=Path, help="pictures made by training.generated")
    parser.add_argument("--start", type=Path, help="an earlier judge to go on from")
    parser.add_argument("--text-seconds", type=float, default=400, help="for the text tower first")
    parser.add_argument("--pool", type=int, default=16000)
    return parser.parse_args()


def main() -> None:
    """Train and save; then `measure.judge` says how good it is."""
    given = arguments()
    rng = common.seeded(3000 + given.seed)
    tokenizer = HFTokenizer(str(given.tokenizer), context_length=CONTEXT)
    texts = Texts(new_judge(), tokenizer)
    if given.start:
        texts.judge = open_clip.create_model(f"local-dir:{given.start}")
        texts.scenes.load_state_dict(load_file(scenes_file(given.start)))
    else:
        judge_text.train(texts, common.Budget(given.text_seconds, given.steps), rng)
    through = given.vae and partial(through_vae, vae=load_vae(given.vae))
    fresh = partial(judge_data.drawn, through=through or (lambda images: images))
    images = generated.load(given.generated) if given.generated else None
    trainer, known = Trainer(texts, RATE / 2 if given.start else RATE), fresh(given.pool, rng)
    budget = common.Budget(given.seconds, given.steps)
    save(train(trainer, budget, known, images, fresh, rng), given.tokenizer, given.out)
    save_file(texts.scenes.state_dict(), scenes_file(given.out))


if __name__ == "__main__":
    main()
