"""The writer that runs a causal language model in this process, with batched jobs."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from jinja2 import TemplateError
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from pipeline.errors import JobError, ModelError
from pipeline.job import Brief, Context, Job, Rejected
from pipeline.models import Models
from pipeline.models.batching import Batcher
from pipeline.models.chat import ended, greedy, through_template, without_special_tokens
from pipeline.profile import LocalWriterProfile
from pipeline.telemetry import notice
from pipeline.writing.messages import Message, messages_for, texts_read
from pipeline.writing.reply import CUT_OFF, brief_from, parse_reply

PROBE = "nine blue boats"
UNBOUNDED = 10**6
"""Tokens of an unlimited window; tokenizers without a limit report 1e30."""


@dataclass(frozen=True)
class _Question:
    tokens: list[int]
    seed: int


@dataclass(frozen=True)
class _Reply:
    text: str
    ended: bool


class LocalWriter:
    """The Writer port over a causal language model and its chat template.

    Greedy at temperature 0. Above it each job samples from its own seed, so that the batch changes
    a brief by rounding only.
    """

    def __init__(self, models: Models, profile: LocalWriterProfile) -> None:
        self._model, self._tokenizer = model, tokenizer = models.language_model(profile)
        self._in_parts = _takes_parts(tokenizer)
        self._temperature, self._checks = profile.temperature, profile.checks
        self._config = greedy(model, tokenizer, profile.max_tokens)
        trained = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        window = min(trained or UNBOUNDED, tokenizer.model_max_length, UNBOUNDED)
        self._room = int(window) - profile.max_tokens
        self._encoding = threading.Lock()
        self._batcher = Batcher(
            "writer", self._replies, limit=profile.batch, device_lock=models.device_lock
        )

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """The model's brief. Raises JobError for an unusable reply."""
        tokens, fitting = self._fitting(job, context, rejected)
        reply = self._batcher(_Question(tokens, job.seed))
        if not reply.ended:
            notice(CUT_OFF)
        stays = rejected is not None and not rejected.rule
        checks, read = 0 if stays else self._checks, texts_read(job, fitting)
        draft = parse_reply(reply.text, checks=checks)
        return brief_from(job, context, draft, read, checks=checks)

    def close(self) -> None:
        """Finish the waiting jobs, then stop."""
        self._batcher.close()

    def _fitting(
        self, job: Job, context: Context, rejected: Rejected | None
    ) -> tuple[list[int], Context]:
        """The messages' tokens, with as many of the best passages as fit the model's window, and
        those.
        """
        for kept in range(len(context.texts), -1, -1):
            fewer = Context(passages=context.texts[:kept])
            messages = messages_for(job, fewer, checks=self._checks, rejected=rejected)
            purged = _without_special_tokens(self._tokenizer, messages)
            text = _rendered(self._tokenizer, purged, self._in_parts)
            with self._encoding:
                tokens = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
            if len(tokens) <= self._room:
                if kept < len(context.texts):
                    notice(f"the writer read {kept} of {len(context.texts)} retrieved texts")
                return tokens, fewer
        raise JobError(f"keywords and style do not fit into the writer's {self._room} tokens")

    @torch.inference_mode()
    def _replies(self, questions: Sequence[_Question]) -> list[_Reply]:
        rows = [torch.tensor(question.tokens) for question in questions]
        pad = int(self._config.pad_token_id)
        # both [batch, longest row], aligned at the right
        ids = pad_sequence(rows, True, pad, "left")
        mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0, "left")
        device, draws = self._model.device, LogitsProcessorList()
        if self._temperature > 0:
            seeds = [q.seed for q in questions]
            draws.append(_SeededDraws(seeds, self._temperature, device))
        generated = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=self._config,
            logits_processor=draws,
        )
        written = generated[:, ids.shape[1] :]
        with self._encoding:
            texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        ends = ended(written, self._config)
        return [_Reply(*each) for each in zip(texts, ends, strict=True)]


class _SeededDraws(LogitsProcessor):
    """Turns greedy choices into samples of softmax(logits / temperature), each row from its own
    seed.

    The Gumbel-max trick (Maddison, Tarlow and Minka 2014, "A* sampling"): generate()'s own
    sampling draws for the whole batch from one generator.
    """

    def __init__(self, seeds: list[int], temperature: float, device: torch.device) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [batch, vocabulary] in logits, with Gumbel noise added."""
        del input_ids
        size, device = scores.shape[1], scores.device
        rows = [torch.rand(size, generator=g, device=device) for g in self._generators]
        uniform = torch.stack(rows)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
        return scores.float() / self._temperature + gumbel


def _takes_parts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True for a chat template that takes each message as a list of parts, as vision models' do.
    Raises ModelError for a template that drops messages.
    """
    probe: list[Message] = [{"role": "user", "content": PROBE}]
    for in_parts in (False, True):
        # a template may do anything with the wrong form, even raise an error of Python's
        with suppress(TemplateError, TypeError, ValueError, KeyError):
            if PROBE in _rendered(tokenizer, probe, in_parts):
                return in_parts
    raise ModelError("the writer's chat template drops what it is given; take another one")


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], in_parts: bool = False
) -> str:
    """The messages as one text, up to the beginning of the reply."""
    if not tokenizer.chat_template:
        lines = [f"{message['role']}: {message['content']}" for message in messages]
        return "\n".join([*lines, "assistant:"])
    try:
        return _through_template(tokenizer, messages, in_parts)
    except TemplateError:
        # some templates refuse the system role
        whole = "\n\n".join(message["content"] for message in messages)
        return _through_template(tokenizer, [{"role": "user", "content": whole}], in_parts)


def _through_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], in_parts: bool
) -> str:
    chat = [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        if in_parts
        else message
        for message in messages
    ]
    return through_template(tokenizer.apply_chat_template, chat, "writer", enable_thinking=False)


def _without_special_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message]
) -> list[Message]:
    return [
        {"role": each["role"], "content": without_special_tokens(tokenizer, each["content"])}
        for each in messages
    ]
