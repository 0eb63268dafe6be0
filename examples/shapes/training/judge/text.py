"""The judge's text tower, trained against scenes: an image's truth stands in for the image."""

from dataclasses import dataclass

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot, softplus

from examples.shapes import world
from examples.shapes.training import common
from examples.shapes.training.judge import data as judge_data
from examples.shapes.training.judge.data import FIELDS, UNSAID, Codes

BATCH, UNTRUE, RATE, WIDTH = 64, 1, 1e-3, 128
_SIZES = [len(values) + 1 for values in FIELDS.values()]


@dataclass(frozen=True)
class Sentences:
    """Texts with what they say, and which image each was made for, bool [images, texts]."""

    texts: list[str]
    codes: Codes
    own: Tensor


def sentences(scenes: list[world.Scene], untrue: int, rng: np.random.Generator) -> Sentences:
    """For each scene one true sentence and some untrue ones."""
    texts = [judge_data.sentence(scene, rng) for scene in scenes]
    texts += [judge_data.untrue_sentence(s, rng) for s in scenes for _ in range(untrue)]
    codes = np.array([judge_data.code(world.parse(text)) for text in texts])
    here = torch.arange(len(scenes))
    whose = torch.cat([here, here.repeat_interleave(untrue)])
    return Sentences(texts, codes, whose[None] == here[:, None])


class Texts:
    """The judge whose text tower learns, the network that embeds scenes, and heads for learning."""

    def __init__(self, judge: CLIP, tokenizer: HFTokenizer) -> None:
        self.judge, self.tokenizer = judge, tokenizer
        self.scenes = nn.Sequential(
            nn.Linear(sum(_SIZES) + 1, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(),
            nn.Linear(256, WIDTH),
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Linear(WIDTH, size) for size in _SIZES)

    def parameters(self) -> list[nn.Parameter]:
        """All that learns: everything but the image tower."""
        tower = [p for name, p in self.judge.named_parameters() if not name.startswith("visual.")]
        return [*tower, *self.scenes.parameters(), *self.heads.parameters()]

    def text(self, texts: list[str]) -> Tensor:
        """[n, 128], as from `encode_text`, but read to the end of the longest text alone."""
        judge, tokens = self.judge, self.tokenizer(texts)
        length = int(tokens.argmax(1).max()) + 1
        x = judge.token_embedding(tokens[:, :length]) + judge.positional_embedding[:length]
        x = judge.transformer(x, attn_mask=judge.attn_mask[:length, :length])
        ends = judge.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)]
        return ends @ judge.text_projection

    def scene(self, codes: Codes, clear: np.ndarray) -> Tensor:
        """The target embeddings of images of the scenes, [n, 128]; failed ones have no shapes."""
        columns = torch.from_numpy(visible(codes, clear) + 1).T
        parts = [one_hot(c, size) for c, size in zip(columns, _SIZES, strict=True)]
        return self.scenes(torch.cat([*parts, torch.from_numpy(clear)[:, None]], 1).float())

    def said_loss(self, text: Tensor, codes: Codes) -> Tensor:
        """The loss of the heads on the sentences; 0 stands for what is not said."""
        aims = torch.from_numpy(np.where(_any_order(codes) & _PAIRED, -1, codes + 1)).T
        losses = [cross_entropy(head(text), aim, ignore_index=-1)
                  for head, aim in zip(self.heads, aims, strict=True)]  # fmt: skip
        return torch.stack(losses).sum()


_SHAPED = np.array([name.startswith("shape") for name in FIELDS])
_PAIRED = np.array([name.startswith(("shape", "colour")) for name in FIELDS])


def visible(codes: Codes, clear: np.ndarray) -> Codes:
    """The codes without the shapes of failed images."""
    return np.where(clear[:, None] | ~_SHAPED, codes, UNSAID)


def _any_order(codes: Codes) -> np.ndarray:
    names = list(FIELDS)
    pair = codes[:, names.index("count")] == 1
    return (pair & (codes[:, names.index("arrangement")] == UNSAID))[:, None]


def contrast(
    image: Tensor, text: Tensor, agree: Tensor, own: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """The pairwise sigmoid loss per image; its own sentences count four times."""
    logits = scale * normalize(image, dim=1) @ normalize(text, dim=1).T + bias
    each = softplus(torch.where(agree, -logits, logits))
    return (each * (1 + 3 * own)).sum(1).mean()


def step_losses(texts: Texts, rng: np.random.Generator) -> dict[str, Tensor]:
    """The losses on fresh scenes, as many that differ from them in one thing, and sentences."""
    scenes = common.sample_many(BATCH, rng, two=0.5)
    said = sentences(scenes, UNTRUE, rng)
    scenes += [world.one_wrong(s, rng) for s in 2 * scenes]
    truths = np.array([judge_data.code(world.attributes(scene)) for scene in scenes])
    clear = rng.random(len(scenes)) >= 0.1
    agree = torch.from_numpy(judge_data.agreement(truths, said.codes) & clear[:, None])
    text, own = texts.text(said.texts), said.own.repeat(3, 1)
    scale, bias = texts.judge.logit_scale.exp(), texts.judge.logit_bias
    return {
        "contrast": contrast(texts.scene(truths, clear), text, agree, own, scale, bias),
        "said": 0.3 * texts.said_loss(text, said.codes),
    }


def train(texts: Texts, budget: common.Budget, rng: np.random.Generator) -> None:
    """Teach the text tower and the scenes' network in place."""
    optimizer = torch.optim.AdamW(texts.parameters(), lr=RATE, weight_decay=0.02, betas=(0.9, 0.98))
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress, 0.05))
        parts = step_losses(texts, rng)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(texts.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            common.log(step, budget, **{name: part.item() for name, part in parts.items()})
