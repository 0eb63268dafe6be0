"""Batches of conversations for the writer's training: tokens, weights, what the probes look at."""

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from examples.shapes.training.writer.data import Conversation, Mix, conversation
from examples.shapes.training.writer.passages import training_taste
from examples.shapes.training.writer.tokenizer import ASSISTANT, STOP, USER
from examples.shapes.world import POSITIONS

BATCH_TOKENS = 3072
POOL = 192


@dataclass(frozen=True)
class Encoded:
    """A conversation in tokens; probes are (token, whether asked for).

    `repeats` are the asked-for brand's tokens in the passages after each mention's first: those
    that can be foreseen from the keywords.
    """

    ids: list[int]
    answer: int
    repeats: list[int]
    brands: list[tuple[int, bool]]
    words: list[tuple[int, bool]]


@dataclass(frozen=True)
class Batch:
    """Right-padded ids [n, t], weights of next tokens [n, t], probes' rows, columns and labels."""

    ids: torch.Tensor
    weights: torch.Tensor
    brands: torch.Tensor
    words: torch.Tensor


def encode(tokenizer: Tokenizer, conversations: list[Conversation]) -> list[Encoded]:
    """Tokens of whole conversations, as the chat template lays them out."""
    texts = [f"{USER}{c.user}{ASSISTANT}{c.answer}{STOP}" for c in conversations]
    found = []
    for talk, coded in zip(conversations, tokenizer.encode_batch(texts), strict=True):
        ends = {end - len(USER): i for i, (_, end) in enumerate(coded.offsets)}
        brands = [(ends[b], asked) for _, b, asked in talk.brand_spans if b in ends]
        words = [(ends[b], asked) for _, b, asked in talk.word_spans if b in ends]
        answer = coded.ids.index(tokenizer.token_to_id(ASSISTANT))
        repeats = [
            i for i, (start, end) in enumerate(coded.offsets) if _is_repeat(talk, start, end)
        ]
        found.append(Encoded(coded.ids, answer, repeats, brands, words))
    return found


def _is_repeat(talk: Conversation, start: int, end: int) -> bool:
    """True for a token at these characters that continues an asked-for brand's name."""
    start, end = start - len(USER), end - len(USER)
    return any(asked and a < start and end <= b for a, b, asked in talk.brand_spans)


def collate(items: list[Encoded], heavy: frozenset[int]) -> Batch:
    """Pad on the right; answers' tokens count, those in `heavy` twice, a brand's repeats half."""
    longest = max(len(item.ids) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    weights = torch.zeros(len(items), longest)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        goals = item.ids[item.answer + 1 :]
        weights[row, item.answer : len(item.ids) - 1] = torch.tensor(
            [2.0 if g in heavy else 1.0 for g in goals]
        )
        weights[row, [i - 1 for i in item.repeats]] = 0.5
    brands = [(row, i, asked) for row, item in enumerate(items) for i, asked in item.brands]
    words = [(row, i, asked) for row, item in enumerate(items) for i, asked in item.words]
    return Batch(
        ids, weights, torch.tensor(brands).reshape(-1, 3), torch.tensor(words).reshape(-1, 3)
    )


class Source:
    """Endless batches of like lengths; the number of brands grows as the loss falls."""

    def __init__(self, tokenizer: Tokenizer, rng: np.random.Generator, most_brands: int) -> None:
        self.tokenizer, self.rng, self.taste = tokenizer, rng, training_taste()
        self.most_brands = most_brands
        self.heavy = frozenset(
            i for word in POSITIONS for i in tokenizer.encode(f" {word}").ids[-1:] if i is not None
        )
        self._ready: list[Batch] = []

    def __next__(self) -> Batch:
        if not self._ready:
            self._ready = self._pool()
        return self._ready.pop()

    def _pool(self) -> list[Batch]:
        mix = Mix(most_brands=self.most_brands)
        talks = [conversation(self.rng, self.taste, mix) for _ in range(POOL)]
        items = sorted(encode(self.tokenizer, talks), key=lambda item: len(item.ids))
        batches: list[list[Encoded]] = [[]]
        for item in items:
            if (len(batches[-1]) + 1) * len(item.ids) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(item)
        self.rng.shuffle(batches)
        return [collate(items, self.heavy) for items in batches if items]
