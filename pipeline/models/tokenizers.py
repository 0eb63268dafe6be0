"""CLIP's tokenizer, and checks of others: one of incomplete files encodes every text alike."""

from itertools import islice
from typing import Any

from pipeline.errors import ModelError

TEXTS = ("a red circle", "nine blue boats")
"""Texts of equally many words, because even an empty vocabulary may encode their number."""
WORDS = 100
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad: str, length: int) -> Any:
    """CLIP's own tokenizer, made of the vocabulary that OpenCLIP carries; `length` is the window of
    its text encoder, and `pad` the token that fills it.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    known = SimpleTokenizer()
    names = dict(zip(known.all_special_ids, (BEGIN, END), strict=True))
    return CLIPTokenizer(
        vocab={names.get(number, token): number for token, number in known.encoder.items()},
        merges=list(known.bpe_ranks),
        pad_token=pad,
        model_max_length=length,
    )


def check_tokenizer(tokenizer: Any, where: object) -> None:
    """Raise ModelError unless two texts are encoded differently.

    A small vocabulary may not hold our words, so its own are tried too.
    """
    own = islice((word for word in tokenizer.get_vocab() if word.isalpha()), WORDS)
    special = set(tokenizer.all_special_ids)
    for texts in (TEXTS, own):
        encoded = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        words = {tuple(n for n in ids if n not in special) for ids in encoded}
        if len(words - {()}) > 1:
            return
    raise ModelError(
        f"the tokenizer in {where} knows no words, so that the model would never see a text: "
        "tokenizer.json or its vocabulary is missing; fetch it again"
    )


def fits(tokenizer: Any, text: str) -> bool:
    """True for a text that an OpenCLIP tokenizer does not truncate: more room adds only padding."""
    room = tokenizer.context_length
    short, long = (tokenizer([text], context_length=n)[0] for n in (room, 2 * room))
    return bool((short == long[:room]).all() and (long[room:] == long[-1]).all())
