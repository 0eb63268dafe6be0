"""Checks of tokenizers: one loaded from incomplete files encodes every text alike."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pipeline.errors import ModelError

TEXTS = ("a red circle", "nine blue boats")
"""Texts of equally many words, because even an empty vocabulary may encode their number."""
WORDS = 100


def check_tokenizer(tokenizer: Any, where: object) -> None:
    """Raise ModelError unless two texts are encoded differently.

    A small vocabulary may not hold our words, so its own are tried too.
    """
    own = islice((word for word in tokenizer.get_vocab() if word.isalpha()), WORDS)
    if not any(len(_seen(tokenizer, texts)) > 1 for texts in (TEXTS, own)):
        raise ModelError(
            f"the tokenizer in {where} knows no words, so that the model would never see a text: "
            "tokenizer.json or its vocabulary is missing; fetch it again"
        )


def fits(tokenizer: Any, text: str) -> bool:
    """True for a text that an OpenCLIP tokenizer does not truncate: more room adds only padding."""
    room = tokenizer.context_length
    short, long = (tokenizer([text], context_length=n)[0] for n in (room, 2 * room))
    return bool((short == long[:room]).all() and (long[room:] == long[-1]).all())


def _seen(tokenizer: Any, texts: Iterable[str]) -> set[tuple[int, ...]]:
    """The distinct encodings of the texts, empty ones excluded."""
    special = set(tokenizer.all_special_ids)
    encoded = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return {ids for each in encoded if (ids := tuple(n for n in each if n not in special))}
