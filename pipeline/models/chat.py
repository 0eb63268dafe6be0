"""Chats with models: their templates, which are outside code, so each runs within a time limit and
data that fills them cannot leave its message, and the likeliest reply.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from pipeline.errors import ModelError

TEMPLATE_SECONDS = 20.0


def through_template(
    apply: Callable[..., Any], chat: Sequence[Any], role: str, **settings: Any
) -> str:
    """The text that a tokenizer's or processor's `apply_chat_template` makes of a chat, up to the
    beginning of the reply. Raises ModelError after a time limit, and the template's own errors.
    """

    def render() -> None:
        try:
            text = apply(list(chat), tokenize=False, add_generation_prompt=True, **settings)
            done.set_result(str(text))
        except Exception as error:  # noqa: BLE001 - raised by the waiting thread
            done.set_exception(error)

    done: Future[str] = Future()
    # a thread cannot be stopped; a daemon does not keep the process alive
    threading.Thread(target=render, name="chat template", daemon=True).start()
    try:
        return done.result(TEMPLATE_SECONDS)
    except TimeoutError as error:
        reason = f"the {role}'s chat template took more than {TEMPLATE_SECONDS:g} s"
        raise ModelError(f"{reason}; take another one") from error


def without_special_tokens(tokenizer: Any, text: str) -> str:
    """The text without the model's control tokens, with which data could leave its message."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    # until none is left: the removal of one may join another together
    while found := [token for token in special if token.strip() and token in text]:
        for token in found:
            text = text.replace(token, " ")
    return text


def greedy(model: Any, tokenizer: Any, tokens: int) -> Any:
    """The GenerationConfig of the likeliest token at a time, of at most `tokens`, up to the model's
    own end.
    """
    from transformers import GenerationConfig

    own = model.generation_config and model.generation_config.eos_token_id
    # everything else is as in the model's own configuration
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id if own is None else own,
    )


def ended(written: Any, config: Any) -> list[bool]:
    """For each row of `written`, the new tokens [rows, longest], True where it came to its end by
    itself.
    """
    ends = config.eos_token_id
    # rows that ended before others are padded
    known = {config.pad_token_id, *([ends] if isinstance(ends, int) else ends)}
    room = written.shape[1] < config.max_new_tokens
    return [room or last in known for last in written[:, -1].tolist()]
