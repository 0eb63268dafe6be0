"""Textual inversions: vectors that take the place of words in a text, for each row its own.

Gal et al., "An Image is Worth One Word" (2022), https://arxiv.org/abs/2208.01618. In a request's
texts, each vector of an embedding that they name becomes a token of the tokenizer that stands for
nothing. Where a text encoder looks up its tokens, a hook puts the vectors there. So rows of
different embeddings, of one name as well, are encoded in one call, and the model's own vocabulary
is never changed.
"""

import threading
from collections.abc import Generator, Hashable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import torch
from cachetools import LRUCache
from tokenizers import AddedToken
from torch import Tensor, nn

from pipeline.errors import JobError
from pipeline.job import MOST_EMBEDDINGS, RenderRequest, TextualInversion
from pipeline.models import Models
from pipeline.models.named.textual_inversions import TWO_ENCODERS, TextualInversionFolder
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions.base import Condition
from pipeline.rendering.conditions.weights import read
from pipeline.rendering.prompts import MARK
from pipeline.telemetry import notice

KEPT = 256
"""Embeddings that stay in memory."""
MARKS = [chr(ord(MARK) + number) for number in range(MOST_EMBEDDINGS)]
"""The tokens for the vectors of a request's first, second, … embedding: characters that Unicode
leaves to private use.
"""
_NO_MARKS = {ord(mark): None for mark in MARKS}


class Lookup(NamedTuple):
    """Vectors [n, width] for the outputs of a table of tokens at `rows` and `columns`, both [n]."""

    rows: Tensor
    columns: Tensor
    vectors: Tensor


@dataclass(eq=False)
class Encoder:
    """A text encoder, the number of its tokenizer's first mark, and what the call in progress looks
    up.
    """

    model: Any
    first: int
    lookup: Lookup | None = None

    @property
    def table(self) -> Any:
        """The table of the tokens' own vectors."""
        return self.model.get_input_embeddings()

    def put_vectors(self, _table: nn.Module, _given: object, output: Tensor) -> None:
        """Put the vectors into the output of the table, [rows, tokens, width]."""
        if self.lookup:
            output[self.lookup.rows, self.lookup.columns] = self.lookup.vectors.to(output)


class TextualInversions(Condition):
    """The textual inversions of a pipeline, from the folder that its profile names."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        self._kind = type(pipe).__name__
        self._folder = models.weights(TextualInversionFolder, profile.embeddings)
        self._loaded: LRUCache[str, list[Tensor]] = LRUCache(KEPT)
        self._lock = threading.Lock()
        self._encoders = list[Encoder]()
        readers = [
            (part, pipe.components.get(name.replace("text_encoder", "tokenizer")))
            for name, part in pipe.components.items()
            if self._folder and name.startswith("text_encoder") and part is not None
        ]
        if all(tokens and type(model).__name__.startswith("CLIPText") for model, tokens in readers):
            for model, tokenizer in readers:
                tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
                first = tokenizer.convert_tokens_to_ids(MARKS[0])
                self._encoders.append(Encoder(model, first))

    def reworded(self, request: RenderRequest) -> RenderRequest:
        """The request with marks in place of its embeddings' names. Raises JobError for an
        embedding that cannot be used.
        """
        texts = [text.translate(_NO_MARKS) for text in (request.prompt, request.negative)]
        marked = list(zip(MARKS, request.embeddings, strict=False))
        # `bad-hands-5` is not `bad-hands`
        for mark, embedding in sorted(marked, key=lambda each: -len(each[1].name)):
            marks = mark * len(self._vectors(embedding)[0])
            before, texts = texts, [embedding.pattern.sub(marks, text) for text in texts]
            if texts == before:
                notice(
                    f"the embedding {embedding.name!r} has no effect: neither the prompt nor the "
                    "negative prompt holds its name"
                )
        prompt, negative = texts
        return request.model_copy(update={"prompt": prompt, "negative": negative})

    def text_key(self, request: RenderRequest) -> Hashable:
        """The embeddings, which equal marks stand for."""
        return tuple(embedding.digest for embedding in request.embeddings)

    @contextmanager
    def applied(self, requests: Sequence[RenderRequest], steps: Sequence[int]) -> Generator[None]:
        """Have the text encoders look up each request's embeddings in its texts."""
        with ExitStack() as hooks:
            for index, encoder in enumerate(self._encoders):
                if any(request.embeddings for request in requests):
                    take_marks = partial(self._take_marks, index, requests)
                    hooks.enter_context(
                        encoder.model.register_forward_pre_hook(take_marks, with_kwargs=True)
                    )
                    hooks.enter_context(encoder.table.register_forward_hook(encoder.put_vectors))
            yield

    def _vectors(self, embedding: TextualInversion) -> list[Tensor]:
        """[vectors, width] for each text encoder, on the processor. Raises JobError."""
        with self._lock:
            if (found := self._loaded.get(embedding.digest)) is None:
                found = self._loaded[embedding.digest] = self._load(embedding)
            return found

    def _load(self, embedding: TextualInversion) -> list[Tensor]:
        if self._folder is None:
            raise JobError(
                "the profile's renderer names no folder of embeddings (renderer.embeddings)"
            )
        if not self._encoders:
            raise JobError(f"{self._kind} takes no embeddings: not all its text encoders are CLIPs")
        tensors = read(self._folder, embedding).tensors
        names = TWO_ENCODERS if len(tensors) > 1 else tuple(tensors)
        vectors = [tensors[name].view(-1, tensors[name].shape[-1]) for name in names]
        widths = [each.shape[1] for each in vectors]
        wanted = [encoder.table.embedding_dim for encoder in self._encoders]
        if widths != wanted:
            raise JobError(
                f"the embedding {embedding.name!r} is of another base model: its vectors have "
                f"{_listed(widths)} numbers, and the model's text encoders take {_listed(wanted)}"
            )
        return vectors

    def _take_marks(
        self,
        index: int,
        requests: Sequence[RenderRequest],
        _model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Take the marks out of a text encoder's tokens, [rows, tokens], and look up the vectors
        that they stand for.

        The marks are beyond its table, and some CLIPs take the highest number for a text's end.
        """
        encoder = self._encoders[index]
        tokens: Tensor = args[0] if args else kwargs["input_ids"]
        if len(tokens) != len(requests):
            if len({self.text_key(request) for request in requests}) > 1:
                raise JobError(f"{self._kind} mixes the rows of a batch")
            requests = [requests[0]] * len(tokens)
        found = [
            (row, column, vector)
            for row, (request, numbers) in enumerate(zip(requests, tokens.tolist(), strict=True))
            for mark, embedding in enumerate(request.embeddings, encoder.first)
            for column, vector in zip(
                (column for column, number in enumerate(numbers) if number == mark),
                cycle(self._vectors(embedding)[index]),
                strict=False,
            )
        ]
        encoder.lookup = None
        if found:
            rows, columns, vectors = zip(*found, strict=True)
            places = torch.tensor(rows), torch.tensor(columns)
            encoder.lookup = Lookup(*places, torch.stack(vectors))
        tokens = tokens.masked_fill(tokens >= encoder.first, 0)
        return ((tokens, *args[1:]), kwargs) if args else (args, kwargs | {"input_ids": tokens})


def _listed(widths: Sequence[int]) -> str:
    return " and ".join(map(str, widths))
