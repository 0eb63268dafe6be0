"""Refuses tokenizers that ignore what they are given, as those made of missing files do."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pipeline.errors import ModelError

TEXTS = ("a red circle", "nine blue boats")
"""Of as many words, whose number even an empty vocabulary may tell."""
WORDS = 100


def check_tokenizer(tokenizer: Any, where: object) -> None:
    """Raise ModelError unless two texts are told apart.

    A vocabulary of few words need not know ours, so its own are tried too.
    """
    own = islice((word for word in tokenizer.get_vocab() if word.isalpha()), WORDS)
    if not any(len(_seen(tokenizer, texts)) > 1 for texts in (TEXTS, own)):
        raise ModelError(
            f"the tokenizer in {where} knows no words, so that the model would never see a text: "
            "tokenizer.json or its vocabulary is missing; fetch it again"
        )


def fits(tokenizer: Any, text: str) -> bool:
    """Whether an OpenCLIP tokenizer takes a text whole: more room must add nothing but padding."""
    room = tokenizer.context_length
    short, long = (tokenizer([text], context_length=n)[0] for n in (room, 2 * room))
    return bool((short == long[:room]).all() and (long[room:] == long[-1]).all())


def _seen(tokenizer: Any, texts: Iterable[str]) -> set[tuple[int, ...]]:
    """The different ways in which the texts are encoded, of those that are at all."""
    special = set(tokenizer.all_special_ids)
    encoded = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return {ids for each in encoded if (ids := tuple(n for n in each if n not in special))}
