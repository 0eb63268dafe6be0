"""The writer's tokenizer: byte-level BPE in which a capital is a mark before a small letter.

So "Viora", "viora" and "VIORA" share their tokens, and a brand is found however a job spells it. A
mark stands for the first of several capitals only: acronyms come back as "Ibm".
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CAPITAL = "\ue000"
PAD, USER, ASSISTANT, STOP = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
MERGED, SPACED = 900, 450
MAX_LENGTH = 1024

_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÁÂÄÅÇÈÉÊÍÑÓÔÖØÚÜŠŽ"
_SPACE = "Ġ"
# Special tokens in a message are broken up, so that no passage can end the user's turn.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% set text = m.content | replace('<|', '< |') %}"
    "{% if m.role == 'user' %}<|user|>{{ text }}"
    "{% elif m.role == 'assistant' %}<|assistant|>{{ text }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Learn merges inside words from the texts, then give the commonest words a token with a space.

    Only whole words get their space merged, so a name splits alike at the start of a line, after a
    space and after a capital.
    """
    learned = Tokenizer(models.BPE())
    learned.normalizer = _normalizer()
    learned.pre_tokenizer = _split(rf"\p{{L}}+|{CAPITAL}|[^\p{{L}}{CAPITAL}]")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGED, initial_alphabet=alphabet, show_progress=False
    )
    learned.train_from_iterator(texts, trainer)
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    merges += [(_SPACE, token) for token in _common_words(texts, learned, model["vocab"])]
    return _with_merges(model["vocab"], merges)


def _common_words(texts: Sequence[str], learned: Tokenizer, vocab: dict[str, int]) -> list[str]:
    """The mark of a capital and the commonest words that are one token, commonest first."""
    seen = Counter(word for text in texts for word in re.findall(r"(?<= )[a-z]+", text))
    words = [word for word, _ in seen.most_common() if word in vocab]
    mark = learned.encode(CAPITAL).tokens
    return [*(mark if len(mark) == 1 else ()), *words[:SPACED]]


def _with_merges(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokens = dict.fromkeys([PAD, USER, ASSISTANT, STOP, *sorted(vocab, key=vocab.__getitem__)])
    tokens |= dict.fromkeys(a + b for a, b in merges)
    numbered = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=numbered, merges=merges))
    tokenizer.add_special_tokens([PAD, USER, ASSISTANT, STOP])
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = _split(rf" ?{CAPITAL}| ?\p{{L}}+|[^\p{{L}}{CAPITAL}]")
    restore = [decoders.Replace(CAPITAL + letter.lower(), letter) for letter in _CAPITALS]
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), *restore, decoders.Replace(CAPITAL, "")]
    )
    return tokenizer


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _normalizer() -> Any:
    first = rf"(?<![{_CAPITALS}])(?<!{CAPITAL}\p{{Ll}})"
    marks = [normalizers.Replace(Regex(first + c), CAPITAL + c.lower()) for c in _CAPITALS]
    return normalizers.Sequence([normalizers.NFC(), *marks, normalizers.Lowercase()])


def for_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template, as `AutoTokenizer` loads it; pads on the left."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=STOP,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
