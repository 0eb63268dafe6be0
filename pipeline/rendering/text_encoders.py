"""The text encoders of a pipeline: the tokens that they read, and long and weighted prompts.

A prompt that is longer than a CLIP's window is read in chunks, each with a begin and an end of its
own, and the hidden states of the chunks follow one another; the pooled output is the first one's.
A1111 does so (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, "Infinite
prompt length"). Texts of one sample have equally many chunks: shorter ones end in empty chunks.

The hidden state of each token is multiplied by its weight, and those of a chunk are then scaled
back to the mean that they had, as in A1111 (there, "Attention/emphasis"). There the mean is that of
all texts of a batch; here it is the text's own: an image does not depend on what shares its batch.
"""

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import torch
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor
from torch.nn import functional

from pipeline.errors import JobError
from pipeline.job import RenderRequest, TokenCount
from pipeline.rendering.calls import (
    SCHNELL_TOKENS,
    distilled,
    guided,
    hears_negative,
    taken,
    unheard,
)
from pipeline.rendering.guidance import ALL_STEPS, Guidance
from pipeline.rendering.prompts import KEPT_TOGETHER, MARK, Prompt, as_it_stands, read_weights
from pipeline.telemetry import notice, read_tokens

MOST_CHUNKS = 16
"""Chunks of a text; what is beyond them is left out, and the record says so."""
BACKTRACK = 20
"""A full chunk ends behind its last comma where fewer tokens than these follow it, as in A1111."""

LEAST_MEAN = 1e-3
"""Least mean of hidden states that is worth restoring, as a fraction of their mean size."""

CHATS = ("ZImage", "Flux2")
"""Pipelines whose limit counts the chat template around a prompt, too."""
GLYPHS = {"HunyuanImagePipeline": ("text_encoder_2",)}
"""Text encoders that read nothing of a prompt but what it quotes."""

Encoded = dict[str, Tensor]
"""`text`, the hidden states [tokens, width], and for most models `pooled`, [width]."""
Layer = Callable[[Any], Tensor]
"""Picks hidden states [n, tokens, width] out of a model's output."""


_PROBE = "nine blue boats"


class Token(NamedTuple):
    """A token's number in the vocabulary, and its weight."""

    number: int
    weight: float


Chunk = list[Token]
Text = Literal["prompt", "negative prompt"]


class TextEncoder:
    """A text encoder and its tokenizer. It reads `room` tokens at a time, beside those for the
    begin and the end of a text: chunk after chunk where it is `chunked`, else the first ones only.
    `longest` is the pipeline's own limit, if it has one; in it the pipeline puts the text `before`
    ahead of each prompt.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        *,
        longest: int | None,
        chunked: bool,
        before: str = "",
    ) -> None:
        self.name, self._model, self.chunked = name.replace("_", " "), model, chunked
        self._clip = "CLIP" in type(tokenizer).__name__
        # a copy: a call sets its tokenizer's truncation, and the pipeline's own must truncate
        self._tokenizer = deepcopy(tokenizer)
        self._lock = threading.Lock()
        window = tokenizer.model_max_length
        if self._clip:
            window = min(window, getattr(model.config, "max_position_embeddings", window))
        self._window = int(window if self._clip or longest is None else longest)
        taken = tokenizer.num_special_tokens_to_add() + len(self._numbers(before))
        self.room = max(0, self._window - taken)
        commas = self._numbers(",") if chunked else []
        self._comma = commas[0] if commas and commas[0] != tokenizer.unk_token_id else None

    def count(self, prompt: Prompt) -> tuple[int, int, int]:
        """The numbers of the prompt's tokens, of those that are read, and of the chunks."""
        chunks = self.chunks(prompt)
        tokens = sum(len(run) for section in self._sections(prompt) for run in section)
        return tokens, sum(map(len, chunks)), len(chunks)

    def chunks(self, prompt: Prompt) -> list[Chunk]:
        """The prompt's tokens as far as they are read; each section begins a new chunk."""
        sections = self._sections(prompt)
        if not self.chunked:
            return [list(chain(*chain(*sections)))[: self.room]]
        chunks = [chunk for section in sections for chunk in self._divided(section)]
        if len(chunks) > 1 and not chunks[-1]:
            del chunks[-1]
        return chunks[:MOST_CHUNKS]

    def encode(self, prompts: Sequence[Prompt], layer: Layer) -> tuple[Tensor, Any]:
        """The weighted hidden states [n, tokens, width] of prompts of equally many chunks, and the
        model's output for the first chunks. A call has one chunk of each prompt, so that the
        model's hooks find the prompts in order.
        """
        rows = [self.chunks(prompt) for prompt in prompts]
        states, first = list[Tensor](), None
        for place in range(max(*map(len, rows), prompts[0].chunks if self.chunked else 1)):
            chunks = [row[place] if place < len(row) else [] for row in rows]
            output, weights = self._call(chunks)
            first = first or output
            found = layer(output)
            states.append(weighed(found, weights.to(found.device)))
        return torch.cat(states, 1), first

    def _sections(self, prompt: Prompt) -> list[list[Chunk]]:
        """The tokens of each section, in runs that one chunk is to hold."""
        return [
            [
                run
                for part in section
                for words in KEPT_TOGETHER.split(part.text)
                if words
                for run in self._runs(words, part.weight)
            ]
            for section in prompt.sections
        ]

    def _runs(self, words: str, weight: float) -> list[Chunk]:
        tokens = [Token(number, weight) for number in self._numbers(words)]
        return [tokens] if words[0] >= MARK else [[token] for token in tokens]

    def _numbers(self, words: str) -> list[int]:
        with self._lock:
            found = self._tokenizer(words, add_special_tokens=False, verbose=False)
        return list(found["input_ids"])

    def _divided(self, section: Sequence[Chunk]) -> Iterator[Chunk]:
        chunk, behind_comma = Chunk(), 0
        for run in section:
            comma = run[0].number == self._comma
            if len(chunk) + len(run) > self.room:
                end = len(chunk)
                if behind_comma > 0 and end - behind_comma < BACKTRACK and len(run) == 1:
                    end = end if comma else behind_comma
                yield chunk[:end]
                chunk, behind_comma = chunk[end:], 0
            chunk += run[: self.room]
            if comma:
                behind_comma = len(chunk)
        yield chunk

    def _call(self, chunks: Sequence[Chunk]) -> tuple[Any, Tensor]:
        """The model's output for chunks, and the weights of all their tokens, [n, tokens]."""
        rows = [self._padded(chunk) for chunk in chunks]
        numbers = torch.tensor([[token.number for token in row] for row in rows])
        weights = torch.tensor([[token.weight for token in row] for row in rows])
        device, more = get_module_execution_device(self._model), dict[str, Tensor]()
        if getattr(self._model.config, "use_attention_mask", False):
            ends = torch.tensor([[len(chunk) + self._window - self.room] for chunk in chunks])
            more["attention_mask"] = (torch.arange(self._window) < ends).to(device)
        return self._model(numbers.to(device), output_hidden_states=True, **more), weights

    def _padded(self, chunk: Chunk) -> Chunk:
        """A whole window: the chunk between its begin and its end, and padding."""
        names = self._tokenizer
        begin = [Token(names.bos_token_id, 1.0)] if self._clip else []
        row = [*begin, *chunk, Token(names.eos_token_id, 1.0)]
        return row + [Token(names.pad_token_id, 1.0)] * (self._window - len(row))


def weighed(states: Tensor, weights: Tensor) -> Tensor:
    """Hidden states [n, tokens, width] times their weights [n, tokens], each text's scaled back to
    its mean, unless that is next to nothing: the quotient would be rounding. A text whose weights
    are all 1 stays as it is.
    """
    changed = (weights != 1).any(1)
    given = states.float()
    found = given * weights[..., None]
    before, after = (each.mean((1, 2), keepdim=True) for each in (given, found))
    least = LEAST_MEAN * found.abs().mean((1, 2), keepdim=True)
    scaled = found * torch.where(after.abs() > least, before / after, 1)
    return torch.where(changed[:, None, None], scaled.to(states.dtype), states)


class TextEncoders:
    """All text encoders of a pipeline. With `weighted`, its prompts are in the syntax of weights.

    Of SD 1, 2, XL and 3 the CLIPs read in chunks. Every other encoder has one window, and leaves
    out what does not fit.
    """

    def __init__(self, pipe: Any, *, weighted: bool = False) -> None:
        self._pipe, self._weighted, name = pipe, weighted, type(pipe).__name__
        parts = {
            # a processor has its tokenizer
            part: (model, getattr(tokenizer, "tokenizer", tokenizer))
            for part, model in pipe.components.items()
            if part.startswith("text_encoder")
            and model is not None
            and (tokenizer := pipe.components.get(part.replace("text_encoder", "tokenizer")))
            and part not in GLYPHS.get(name, ())
        }
        kinds = {type(model).__name__ for model, _ in parts.values()}
        known = kinds and all(kind.startswith(("CLIPText", "T5Enc")) for kind in kinds)
        self._encode = next(
            (way for prefix, way in _ENCODINGS.items() if known and name.startswith(prefix)), None
        )
        self._encoders = [
            TextEncoder(
                part,
                model,
                tokenizer,
                longest=_longest(pipe),
                chunked=self._encode not in (None, _flux) and "CLIP" in type(tokenizer).__name__,
                before=_before(pipe) if name.startswith(CHATS) else "",
            )
            for part, (model, tokenizer) in parts.items()
        ]

    def prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """The texts of one sample as the encoders read them, with equally many chunks. Raises
        JobError for a weight that is too large, and for one that the model cannot be given.
        """
        found = [read_weights(text) for text in texts] if self._weighted else as_it_stands(texts)
        if self._encode is None and any(prompt.weighted for prompt in found):
            raise JobError(
                f"{type(self._pipe).__name__} takes no weights in a prompt, and no BREAK: write "
                r"\( and \[ for brackets"
            )
        readers = [encoder for encoder in self._encoders if encoder.chunked]
        counts = [len(encoder.chunks(prompt)) for encoder in readers for prompt in found]
        return [replace(prompt, chunks=max(counts, default=1)) for prompt in found]

    def encode(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """The conditions that prompts of equally many chunks give, in order."""
        assert self._encode
        with torch.no_grad():
            found = self._encode(self._pipe, self._encoders, prompts)
        device = self._pipe._execution_device
        columns = [column.to(device) for column in found.values()]
        return [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]

    def encode_negatives(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """The conditions of negative prompts; zeros for an empty one where the model was trained
        so.
        """
        encoded = self.encode(prompts)
        if self._pipe.config.get("force_zeros_for_empty_prompt"):
            for prompt, found in zip(prompts, encoded, strict=True):
                if not prompt.plain:
                    found |= {name: torch.zeros_like(value) for name, value in found.items()}
        return encoded

    def chunks(self, request: RenderRequest) -> int:
        """The number of chunks in which a pipeline's call needs a request's texts as embeddings; 0
        where the pipeline's own encoding is the same. Raises JobError.
        """
        prompts = self._both(request)
        more = prompts[0].chunks > 1 or any(prompt.weighted for prompt in prompts)
        return prompts[0].chunks if more else 0

    def call_arguments(
        self, arguments: Mapping[str, Any], requests: Sequence[RenderRequest]
    ) -> dict[str, Any]:
        """The arguments of a pipeline's call for requests of equal `chunks`, with their texts as
        plain words, or as embeddings where they need it.
        """
        prompts, negatives = zip(*map(self._both, requests), strict=True)
        texts = {"prompt": prompts, "negative_prompt": negatives}
        given = {name: texts[name] for name in arguments if name in texts}
        # Qwen-Image's blank in place of no negative prompt stays
        plain = {
            name: [prompt.plain for prompt in each]
            for name, each in given.items()
            if name == "prompt" or requests[0].negative
        }
        if not self.chunks(requests[0]):
            return {**arguments, **plain}
        encoded = {"": self.encode(prompts)}
        takes = "negative_prompt_embeds" in taken(self._pipe)
        if "negative_prompt" in given or (
            takes and self._encode is not _flux and guided(requests[0])
        ):
            encoded["negative_"] = self.encode_negatives(negatives)
        names = {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds"}
        return {name: value for name, value in arguments.items() if name not in texts} | {
            prefix + names[part]: torch.stack([each[part] for each in found])
            for prefix, found in encoded.items()
            for part in found[0]
        }

    def _both(self, request: RenderRequest) -> list[Prompt]:
        """The prompt, and the negative prompt as far as it has an effect."""
        negative = request.negative if hears_negative(self._pipe, request) else ""
        return self.prompts([request.prompt, negative])

    def report(self, request: RenderRequest, guidance: Guidance = ALL_STEPS) -> None:
        """Add to the job's record how many tokens its texts have, and notices about those that are
        left out and about guidance and negative prompts without effect.
        """
        prompts: dict[Text, list[str]] = {
            "prompt": [part for part, _ in guidance.parts(request.prompt)]
        }
        if guided(request) and distilled(self._pipe):
            notice(f"guidance {request.guidance:g} has no effect with this model")
        if request.negative:
            if not hears_negative(self._pipe, request):
                notice(unheard(request))
            elif guidance.never:
                notice("the negative prompt has no effect: the profile guides no step")
            else:
                prompts["negative prompt"] = [request.negative]
        counts = [
            TokenCount(text=name, encoder=encoder.name, tokens=tokens, read=read, chunks=chunks)
            for name, texts in prompts.items()
            for prompt in self.prompts(texts)
            for encoder in self._encoders
            for tokens, read, chunks in [encoder.count(prompt)]
        ]
        for each in counts:
            if each.read < each.tokens:
                read = f"{each.read} of {each.tokens} tokens"
                notice(f"the {each.encoder} read {read} of the {each.text}")
        read_tokens(counts)


def _sd(_pipe: Any, encoders: Sequence[TextEncoder], prompts: Sequence[Prompt]) -> Encoded:
    states, _ = encoders[0].encode(prompts, itemgetter(0))
    return {"text": states}


def _xl(_pipe: Any, encoders: Sequence[TextEncoder], prompts: Sequence[Prompt]) -> Encoded:
    """The hidden states of both encoders side by side; a refiner has the second one alone."""
    found = [each.encode(prompts, _penultimate) for each in encoders]
    return {"text": torch.cat([states for states, _ in found], -1), "pooled": found[-1][1][0]}


def _sd3(pipe: Any, encoders: Sequence[TextEncoder], prompts: Sequence[Prompt]) -> Encoded:
    """The hidden states of both CLIPs side by side, then T5's; zeros where there is no T5."""
    found = [each.encode(prompts, _penultimate) for each in encoders[:2]]
    states = torch.cat([states for states, _ in found], -1)
    if len(encoders) > 2:
        more, _ = encoders[2].encode(prompts, itemgetter(0))
    else:
        width = pipe.transformer.config.joint_attention_dim
        more = states.new_zeros(len(prompts), _longest(pipe) or 0, width)
    states = functional.pad(states, (0, more.shape[-1] - states.shape[-1]))
    pooled = torch.cat([first[0] for _, first in found], -1)
    return {"text": torch.cat([states, more], 1), "pooled": pooled}


def _flux(_pipe: Any, encoders: Sequence[TextEncoder], prompts: Sequence[Prompt]) -> Encoded:
    """T5's hidden states and CLIP's pooled output."""
    clip, t5 = encoders
    _, first = clip.encode(prompts, itemgetter(0))
    states, _ = t5.encode(prompts, itemgetter(0))
    return {"text": states, "pooled": first.pooler_output}


def _penultimate(output: Any) -> Tensor:
    states: Tensor = output.hidden_states[-2]
    return states


_ENCODINGS = {
    "StableDiffusionXL": _xl,
    "StableDiffusion3": _sd3,
    "StableDiffusion": _sd,
    "LatentConsistencyModel": _sd,
    "Flux": _flux,
}
"""By the beginning of a pipeline's name, the first that fits; all tensors have a batch axis."""


def _longest(pipe: Any) -> int | None:
    """The pipeline's token limit for encoders other than CLIP, if it has one."""
    if distilled(pipe):
        return SCHNELL_TOKENS
    limit = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    if limit and limit.default:
        return int(limit.default)
    return int(pipe.tokenizer_max_length) if type(pipe).__name__ in GLYPHS else None


def _before(pipe: Any) -> str:
    """The text that a pipeline's chat template puts ahead of a prompt."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": _PROBE}]
    if system := getattr(pipe, "system_message", ""):
        texts = {"system": system, "user": _PROBE}
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in texts.items()
        ]
    rendered = pipe.tokenizer.apply_chat_template(messages, tokenize=False)
    return str(rendered).partition(_PROBE)[0]
