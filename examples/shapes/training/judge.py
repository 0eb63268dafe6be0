"""Train the judge: a small OpenCLIP model that says how well a sentence fits a picture.

    python -m examples.shapes.training.judge --out DIR --tokenizer DIR [--vae DIR]
        [--generated FILE] [--start DIR]

Every picture meets every sentence of its batch, among them sentences with one thing wrong about it,
with the pairwise sigmoid loss of SigLIP (Zhai et al. 2023) over what really agrees. Linear heads
that read each attribute off the embeddings make it learn far sooner; they are thrown away.
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
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize, softplus

from examples.shapes.training import common, generated, judge_data
from examples.shapes.training.judge_data import FIELDS, UNSAID, Known
from examples.shapes.training.looks import augmented, load_vae, through_vae
from examples.shapes.umpire import to_pixels

BATCH, UNTRUE, RATE, DECAY = 64, 2, 1.5e-3, 0.998
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
_CLEAR = "unspoiled"


class Learner(nn.Module):
    """The judge with the heads that only training needs."""

    def __init__(self, judge: CLIP) -> None:
        super().__init__()
        self.judge = judge
        sizes = {name: len(values) for name, values in FIELDS.items()}
        seen = sizes | {_CLEAR: 2}
        self.seen = nn.ModuleDict({k: nn.Linear(WIDTH, n) for k, n in seen.items()})
        self.said = nn.ModuleDict({k: nn.Linear(WIDTH, n + 1) for k, n in sizes.items()})

    def image(self, pixels: Tensor) -> Tensor:
        """Embeddings [n, 128], of any length."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self.judge.encode_image(pixels).float()

    def text(self, tokens: Tensor) -> Tensor:
        """Embeddings [n, 128]; as `encode_text`, but for as many tokens as the longest needs."""
        length = int(tokens.argmax(1).max()) + 1
        judge, tokens = self.judge, tokens[:, :length]
        x = judge.token_embedding(tokens) + judge.positional_embedding[:length]
        x = judge.transformer(x, attn_mask=judge.attn_mask[:length, :length])
        ends = judge.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)]
        return ends @ judge.text_projection


def contrast(learner: Learner, image: Tensor, text: Tensor, agree: Tensor, own: Tensor) -> Tensor:
    """The pairwise sigmoid loss per picture; its own sentences count four times."""
    judge = learner.judge
    cosines = normalize(image, dim=1) @ normalize(text, dim=1).T
    logits = judge.logit_scale.exp() * cosines + judge.logit_bias
    each = softplus(torch.where(agree, -logits, logits))
    return (each * (1 + 3 * own)).sum(1).mean()


def seen_loss(learner: Learner, image: Tensor, known: Known) -> Tensor:
    """How badly the heads read the pictures; of a failed one only what failing leaves intact."""
    clear = torch.from_numpy(known.clear)
    truth = torch.from_numpy(known.codes)
    total = cross_entropy(learner.seen[_CLEAR](image), clear.long())
    for column, name in enumerate(FIELDS):
        aim = truth[:, column]
        if name.startswith("shape"):
            aim = torch.where(clear, aim, UNSAID)
        total = total + _classified(learner.seen[name](image), aim)
    return total


def said_loss(learner: Learner, text: Tensor, said: Tensor) -> Tensor:
    """How badly the heads read the sentences; 0 stands for what is not said."""
    names = list(FIELDS)
    any_order = (said[:, names.index("count")] == 1) & (said[:, names.index("arrangement")] < 0)
    total = text.new_zeros(())
    for column, name in enumerate(names):
        paired = name.startswith(("shape", "colour"))
        aim = torch.where(any_order & paired, -1, said[:, column] + 1)
        total = total + _classified(learner.said[name](text), aim)
    return total


def _classified(logits: Tensor, aim: Tensor) -> Tensor:
    losses = cross_entropy(logits, aim, ignore_index=-1, reduction="sum")
    return losses / (aim >= 0).sum().clamp(min=1)


class Trainer:
    """One learner, its optimizer and average, and the pool of pictures it learns from."""

    def __init__(self, judge: CLIP, tokenizer: HFTokenizer, rate: float) -> None:
        self.learner = Learner(judge)
        self.tokenizer = tokenizer
        self.average = common.moving_average(self.learner, DECAY)
        self.optimizer = torch.optim.AdamW(
            self.learner.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.98)
        )

    def step(self, known: Known, previews: generated.Previews | None, rate: float,
             rng: np.random.Generator) -> dict[str, float]:  # fmt: skip
        """Learn from one batch; the losses."""
        common.set_rate(self.optimizer, rate)
        texts = [judge_data.sentence(scene, rng) for scene in known.scenes]
        texts += [judge_data.untrue_sentence(s, rng) for s in known.scenes for _ in range(UNTRUE)]
        said = np.array([judge_data.code(judge_data.world.parse(text)) for text in texts])
        agree = judge_data.agreement(known.codes, said) & known.clear[:, None]
        parts = self._losses(known, texts, torch.from_numpy(said), torch.from_numpy(agree))
        if previews is not None:
            parts["preview"] = self._foreseen(previews)
        self.optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.learner)
        return {name: part.item() for name, part in parts.items()}

    def _losses(
        self, known: Known, texts: list[str], said: Tensor, agree: Tensor
    ) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            image = self.learner.image(augmented(to_pixels(known.pictures)))
        text = self.learner.text(self.tokenizer(texts))
        here = torch.arange(len(known.scenes))
        own = torch.cat([here, here.repeat_interleave(UNTRUE)])[None] == here[:, None]
        return {
            "contrast": contrast(self.learner, image, text, agree, own),
            "seen": 0.3 * seen_loss(self.learner, image, known),
            "said": 0.3 * said_loss(self.learner, text, said),
        }

    def _foreseen(self, previews: generated.Previews) -> Tensor:
        """An early preview should embed as the finished picture does, as far as it can be told."""
        with torch.no_grad():
            final = self.average.module.eval().image(to_pixels(previews.finals))
        with torch.autocast("cpu", torch.bfloat16):
            early = self.learner.image(augmented(to_pixels(previews.early)))
        return 2 * (1 - cosine_similarity(early, final)).mean()


def train(trainer: Trainer, budget: common.Budget, known: Known, given: generated.Generated | None,
          fresh: judge_data.Source, rng: np.random.Generator) -> CLIP:  # fmt: skip
    """Train on drawn pictures that are renewed bit by bit, and on generated ones where given."""
    for step, progress in budget:
        if step % 20 == 19:
            known.put(fresh(len(known.scenes) // 40, rng), rng)
        batch, previews = known.pick(BATCH, rng), None
        if given is not None:
            batch = judge_data.joined([batch.first(BATCH // 2), given.known.pick(BATCH // 2, rng)])
            previews = given.previews.pick(BATCH // 4, rng)
        figures = trainer.step(batch, previews, common.warmup_cosine(progress), rng)
        if step % 100 == 0:
            common.log(step, budget, **figures)
    return trainer.average.module.judge.eval()


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


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = common.arguments(__doc__, seconds=1500)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="autoencoder to see half of the pictures through")
    parser.add_argument("--generated", type=Path, help="pictures made by training.generated")
    parser.add_argument("--start", type=Path, help="an earlier judge to go on from")
    parser.add_argument("--pool", type=int, default=16000)
    return parser.parse_args()


def main() -> None:
    """Train and save; then `measure.judge` says how good it is."""
    given = arguments()
    rng = common.seeded(3000 + given.seed)
    through = given.vae and partial(through_vae, vae=load_vae(given.vae))
    fresh = partial(judge_data.drawn, through=through or (lambda pictures: pictures))
    judge, rate = new_judge(), RATE
    if given.start:
        judge, rate = open_clip.create_model(f"local-dir:{given.start}"), RATE / 2
    tokenizer = HFTokenizer(str(given.tokenizer), context_length=CONTEXT)
    trainer = Trainer(judge.to(memory_format=torch.channels_last), tokenizer, rate)
    pictures = generated.load(given.generated) if given.generated else None
    known = fresh(given.pool, rng)
    budget = common.Budget(given.seconds, given.steps)
    save(train(trainer, budget, known, pictures, fresh, rng), given.tokenizer, given.out)


if __name__ == "__main__":
    main()
