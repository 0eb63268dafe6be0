"""The words of the model that sees: its tokenizer, its chat, and the form of its questions."""

import numpy as np
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, STOP, IMAGE = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<image>"
YES, NO = "Yes", "No"
ENTRIES, MAX_LENGTH = 640, 512
OPENING, CLOSING = 'Does this image show "', '"? Answer with Yes or No.'
DESCRIBE = "Describe this image."
# Special tokens in a message are broken up, so that no text can pass for an image or an answer.
CHAT_TEMPLATE = (
    "{% macro plain(text) %}{{ text | replace('<|', '< |') | replace('<image>', '< image >') }}"
    "{% endmacro %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
    "{% if m.content is string %}{{ plain(m.content) }}{% else %}"
    "{% for part in m.content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in m.content if part.type == 'text' %}{{ plain(part.text) }}{% endfor %}"
    "{% endif %}{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def question(text: str) -> str:
    """The question whose answer is yes if the image shows the text, that of VQAScore (Lin 2024)."""
    return f"{OPENING}{text}{CLOSING}"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that heeds no case; pads on the left.

    The usual question's frame and the answers are a token each, which halves the questions.
    """
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    special = [PAD, USER, ASSISTANT, STOP, IMAGE]
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=special,
        show_progress=False,
    )
    learned.train_from_iterator(texts, trainer)
    learned.add_tokens([AddedToken(t, normalized=False) for t in (OPENING, CLOSING)])
    learned.add_tokens([AddedToken(t, normalized=False, single_word=True) for t in (YES, NO)])
    return PreTrainedTokenizerFast(
        tokenizer_object=learned,
        pad_token=PAD,
        eos_token=STOP,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def new_tokenizer(rng: np.random.Generator) -> PreTrainedTokenizerFast:
    """The tokenizer of the world's captions, prompts and questions."""
    from examples.shapes.training.sees import asking, looks

    known = looks.drawn(400, rng)
    texts = [text for look in range(len(known)) for text in asking.corpus(known, look, rng)]
    return train_tokenizer(texts)
