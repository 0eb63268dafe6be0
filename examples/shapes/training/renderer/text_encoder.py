"""Train the tokenizer and the text encoder, by predicting from a caption what it says.

A text encoder trained with the UNet from nothing is ignored for thousands of steps; one that
already tells the attributes apart is listened to from the start.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from examples.shapes import world
from examples.shapes.training import common
from examples.shapes.training.renderer.tokenizer import ENTRIES, LENGTH, new_tokenizer

BATCH = 64
# What a caption may say, by the key under which `answers` looks it up.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "0 shape": world.SHAPES,
    "0 colour": tuple(world.COLOURS),
    "0 size": world.SIZES,
    "0 position": world.POSITIONS,
    "1 shape": world.SHAPES,
    "1 colour": tuple(world.COLOURS),
    "background": tuple(world.BACKGROUNDS),
    "arrangement": world.ARRANGEMENTS,
}


def new_text_encoder() -> CLIPTextModel:
    """An untrained text encoder of 0.31M weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=ENTRIES,
            hidden_size=96,
            intermediate_size=384,
            projection_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=ENTRIES - 2,
            eos_token_id=ENTRIES - 1,
            pad_token_id=ENTRIES - 1,
        )
    )


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids [n, 48], padded and cut as the diffusion pipeline does it."""
    encoded = tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


def answers(caption: str) -> list[int]:
    """For each question the index of what the caption says; one past the last where unsaid."""
    said = world.parse(caption)
    return [_index(_said(said, key), values) for key, values in QUESTIONS.items()]


def _said(said: dict[str, Any], key: str) -> str | None:
    if " " not in key:
        return said.get(key)
    number, trait = key.split()
    things = said["things"]
    return things[int(number)].get(trait) if int(number) < len(things) else None


def _index(value: str | None, values: tuple[str, ...]) -> int:
    return values.index(value) if value is not None else len(values)


class Examiner(nn.Module):
    """One linear head per question on the end token's state; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(v) + 1) for v in QUESTIONS.values())

    def forward(self, pooled: torch.Tensor) -> list[torch.Tensor]:
        return [head(pooled) for head in self.heads]


def sample_batch(
    tokenizer: CLIPTokenizer, rng: np.random.Generator, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [count, 48] of random captions and the answers [count, questions]."""
    captions = [world.caption(scene, rng) for scene in common.sample_many(count, rng, 0.5)]
    return tokens(tokenizer, captions), torch.tensor([answers(c) for c in captions])


def accuracy(
    encoder: CLIPTextModel, examiner: Examiner, batch: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """Share of captions of which every answer is right."""
    ids, truth = batch
    with torch.no_grad():
        guesses = torch.stack([g.argmax(1) for g in examiner(encoder(ids).pooler_output)], 1)
    return (guesses == truth).all(1).float().mean().item()


def train(
    budget: common.Budget, tokenizer: CLIPTokenizer, rng: np.random.Generator
) -> tuple[CLIPTextModel, float]:
    """Train by AdamW; the encoder and its accuracy on fresh captions."""
    encoder = new_text_encoder()
    examiner = Examiner(encoder.config.hidden_size)
    weights = [*encoder.parameters(), *examiner.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.01)
    held_out = sample_batch(tokenizer, rng, 1000)
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        ids, truth = sample_batch(tokenizer, rng, BATCH)
        guesses = examiner(encoder(ids).pooler_output)
        loss = torch.stack(
            [functional.cross_entropy(g, t) for g, t in zip(guesses, truth.T, strict=True)]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 200 == 0:
            exact = accuracy(encoder, examiner, held_out)
            common.log(step, budget, loss=loss.item(), exact=exact)
    return encoder, accuracy(encoder, examiner, held_out)


def main() -> None:
    """Command line: writes tokenizer/ and text_encoder/ into the folder."""
    args = common.arguments(__doc__, seconds=150).parse_args()
    rng = common.seeded(args.seed)
    tokenizer = new_tokenizer(rng)
    tokenizer.save_pretrained(args.out / "tokenizer")
    encoder, exact = train(common.Budget(args.seconds, args.steps), tokenizer, rng)
    common.save_half(encoder, args.out / "text_encoder")
    common.report(captions_all_right=exact)


if __name__ == "__main__":
    main()
