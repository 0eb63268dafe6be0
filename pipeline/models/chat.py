"""Chat templates of models: outside code, so each runs within a time limit, and data that fills
them cannot leave its message.
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
