"""The tokenizer that the text encoder and the judge share: byte BPE of 820 entries, any Unicode."""

import json
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from examples.shapes.world import BACKGROUNDS, COLOURS, SHAPES, caption, sample_scene

ENTRIES, LENGTH = 820, 48
START, END = "<|startoftext|>", "<|endoftext|>"
_SUFFIX = "</w>"


def new_tokenizer(rng: np.random.Generator) -> CLIPTokenizer:
    """Learn the merges from captions; every byte, inside and at the end of a word, is an entry."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = alphabet + [byte + _SUFFIX for byte in alphabet]
    merges = []
    for left, right in _learned_merges(rng):
        if len(entries) == ENTRIES - 2:
            break
        if left + right not in entries:
            entries.append(left + right)
            merges.append((left, right))
    vocabulary = {entry: i for i, entry in enumerate([*entries, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def _learned_merges(rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    learner = Tokenizer(models.BPE(end_of_word_suffix=_SUFFIX))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2 * ENTRIES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=_SUFFIX,
        show_progress=False,
    )
    learner.train_from_iterator(_corpus(rng), trainer)
    yield from json.loads(learner.to_str())["model"]["merges"]


def _corpus(rng: np.random.Generator) -> Iterator[str]:
    words = " ".join((*SHAPES, *COLOURS, *BACKGROUNDS))
    for _ in range(20_000):
        yield caption(sample_scene(rng), rng).lower()
    for _ in range(500):
        yield words
