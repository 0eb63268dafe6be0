"""How much of a prompt the text encoders of a pipeline read."""

import threading
from copy import deepcopy
from inspect import signature
from typing import Any

from pipeline.job import RenderRequest
from pipeline.rendering.calls import SCHNELL_TOKENS, distilled, hears_negative, unheard
from pipeline.telemetry import notice


class Windows:
    """The windows of a pipeline's text encoders, in tokens."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._longest = pipe, _longest(pipe)
        # copies of our own: a call sets how its tokenizer cuts, and the renderer's own must cut
        self._tokenizers = {
            name.replace("tokenizer", "text encoder").replace("_", " "): deepcopy(part)
            for name, part in pipe.components.items()
            if name.startswith("tokenizer")
            and part is not None
            and getattr(pipe, name.replace("tokenizer", "text_encoder"), None) is not None
        }
        self._lock = threading.Lock()

    def tell(self, request: RenderRequest, guided_until: float = 1.0) -> None:
        """Have the job's record say what no text encoder reads of its prompts, and what of them has
        no effect where the part `guided_until` of the steps is guided.
        """
        self._tell("prompt", request.prompt)
        if not request.negative:
            return
        if not hears_negative(self._pipe, request):
            notice(unheard(request))
        elif guided_until:
            self._tell("negative prompt", request.negative)
        else:
            notice("the negative prompt has no effect with renderer.guided_until of 0")

    def _tell(self, name: str, text: str) -> None:
        for encoder, tokenizer in self._tokenizers.items():
            with self._lock:
                found = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            own = self._longest is None or "CLIP" in type(tokenizer).__name__
            room = tokenizer.model_max_length if own else self._longest
            room -= tokenizer.num_special_tokens_to_add()
            if len(found) > room:
                notice(f"the {encoder} read {room} of {len(found)} tokens of the {name}")


def _longest(pipe: Any) -> int | None:
    """The tokens that a pipeline gives its other encoders than CLIP at most, if it says so."""
    if distilled(pipe):
        return SCHNELL_TOKENS
    asked = signature(type(pipe).__call__).parameters.get("max_sequence_length")
    return int(asked.default) if asked and asked.default else None
