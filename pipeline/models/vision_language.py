"""Vision-language models that answer questions about images, as chances of a yes, or in words."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL.Image import Image, new

from pipeline.errors import JobError, ModelError
from pipeline.job import ImageArray
from pipeline.lines import one_line
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.models.chat import ended, greedy, through_template, without_special_tokens
from pipeline.profile import Dtype

log = structlog.get_logger(__name__)

Chances = NDArray[np.float32]
Answers = NDArray[np.float32]
"""[…, 3]: P(yes) among a yes and a no, both among all tokens, and the likeliest token."""

PROBE = "nine blue boats"
YES, NO = (("Yes", "yes", " Yes", " yes", "YES"), ("No", "no", " No", " no", "NO"))
READS_NO_IMAGE = "the judge's model does not read an image in its chat template"
SAME = 0.02
"""Largest difference of chances between both ways of asking, which rounding explains."""
LEAST = 0.01
"""Share of a yes and a no among all tokens below which a reply is neither."""
THINKS = re.compile(r"<think(?:ing)?>(?!.*</think(?:ing)?>)", re.DOTALL)
"""Thoughts that a chat template begins and does not end."""

LONGEST = 1000
"""Characters of a reply in words that are kept."""


class _Call(NamedTuple):
    images: Sequence[Image]
    questions: Sequence[str]


class Reply(NamedTuple):
    """A reply in words, on one line; `whole` is False where it was cut at its most tokens, or at
    LONGEST characters.
    """

    text: str
    whole: bool


class _Chat:
    """A model of transformers' `AutoModelForImageTextToText`, with its processor and the chat
    template around an image and a text. Raises ModelError.
    """

    def __init__(self, models: Models, reference: str, role: str, dtype: Dtype) -> None:
        self._model, self._processor = models.vision_language(reference, role, dtype)
        self._tokenizer = self._processor.tokenizer
        self._before, self._after = self._template()

    def _template(self) -> tuple[str, str]:
        """The chat's text before and after the question, with the image's place in the former."""
        content = [{"type": "image"}, {"type": "text", "text": PROBE}]
        chat = [{"role": "user", "content": content}]
        # transformers warns of a setting that the template does not have
        named = "enable_thinking" in str(self._processor.chat_template)
        settings = {"enable_thinking": False} if named else {}
        try:
            text = through_template(self._processor.apply_chat_template, chat, "judge", **settings)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"the judge's chat template takes no image ({error!r})") from error
        before, probe, after = text.partition(PROBE)
        if not probe or PROBE in after:
            raise ModelError("the judge's chat template drops the question; take another one")
        if THINKS.search(after):
            raise ModelError("the judge's model thinks aloud; take one that answers at once")
        return before, after

    def _purged(self, question: str) -> str:
        """The question without control tokens, those of images among them."""
        question = without_special_tokens(self._tokenizer, question)
        for name in ("image_token", "video_token"):
            question = question.replace(getattr(self._processor, name, None) or "\0", " ")
        return question

    def _inputs(self, texts: Sequence[str], images: Sequence[Image]) -> Any:
        inputs = self._processor(
            text=list(texts),
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        return inputs.to(self._model.device, dtype=self._model.dtype)


class VisionLanguage(_Chat):
    """The chances that a model answers questions about images with yes.

    P(yes) is that of the reply's first token, among those that begin a yes or a no: VQAScore (Lin
    et al. 2024, arXiv:2404.01291). Concurrent calls share forward passes of at most `batch`
    questions. The image's part of the chat is read once for all questions about it, where the
    model gives the same chances so; this is tried when it is loaded. Raises ModelError.
    """

    def __init__(
        self, models: Models, reference: str, role: str, *, dtype: Dtype, batch: int
    ) -> None:
        super().__init__(models, reference, role, dtype)
        self._yes, self._no = self._answers()
        self._limit = batch
        # rotary positions of time, height and width, which the model finds by itself
        self._in_three = hasattr(getattr(self._model, "model", None), "rope_deltas")
        with models.device_lock:
            self.reads_image_once = self._can_read_once()
        self._batcher = models.batcher(
            role,
            self._run,
            limit=batch,
            size=lambda call: len(call.images) * len(call.questions),
        )

    def chances(self, images: Sequence[ImageArray], questions: Sequence[str]) -> Chances:
        """P(yes) of each question about each image, [images, questions]. Raises JobError for a
        reply that begins with neither a yes nor a no.
        """
        asked = [self._purged(question) for question in questions]
        answers = self._batcher(_Call([to_image(image) for image in images], asked))
        chances: Chances
        chances, shares, likeliest = np.moveaxis(answers, -1, 0)
        if (shares < LEAST).any():
            said = self._tokenizer.decode([int(likeliest[shares < LEAST][0])])
            raise JobError(
                "the judge's model answered neither yes nor no, but most likely "
                f"{one_line(repr(said), 100)}: take a model that answers without thinking aloud"
            )
        return chances

    def _answers(self) -> tuple[list[int], list[int]]:
        """The tokens that begin a yes, and those that begin a no."""

        def firsts(words: Sequence[str]) -> set[int]:
            ids = (self._tokenizer(each, add_special_tokens=False)["input_ids"] for each in words)
            return {each[0] for each in ids if each}

        yes, no = firsts(YES), firsts(NO)
        unknown = {self._tokenizer.unk_token_id}
        yes, no = yes - no - unknown, no - yes - unknown
        if not yes or not no:
            raise ModelError("the judge's vocabulary does not tell a yes from a no")
        return sorted(yes), sorted(no)

    def _can_read_once(self) -> bool:
        """True if a model that has read the image answers as one that reads it with the question.

        Caches of some models, such as recurrent ones, cannot be shared out.
        """
        call = _Call([new("RGB", (64, 64), "red"), new("RGB", (64, 64), "teal")], [PROBE, "boats"])
        try:
            whole = self._each_whole([call])
        except Exception as error:
            raise ModelError(f"{READS_NO_IMAGE} ({error!r})") from error
        try:
            same = np.abs(self._prefixed([call]) - whole)[:, 0].max() < SAME
        except Exception:  # noqa: BLE001 - whatever a model of any kind raises
            same = False
        if not same:
            log.info("the judge reads an image anew for each question about it")
        return bool(same)

    def _run(self, calls: Sequence[_Call]) -> list[Answers]:
        ask = self._prefixed if self.reads_image_once else self._each_whole
        found = iter(np.concatenate([ask(chunk) for chunk in self._chunks(calls)]))
        return [
            np.array([next(found) for _ in range(len(call.images) * len(call.questions))])
            .astype(np.float32)
            .reshape(len(call.images), len(call.questions), 3)
            for call in calls
        ]

    def _chunks(self, calls: Sequence[_Call]) -> Iterator[list[_Call]]:
        """The calls in lists of at most `batch` questions, in order; a single image may have more
        in a list.
        """
        chunk, rows = list[_Call](), 0
        for call in calls:
            for image in call.images:
                if chunk and rows + len(call.questions) > self._limit:
                    yield chunk
                    chunk, rows = [], 0
                chunk.append(_Call([image], call.questions))
                rows += len(call.questions)
        yield chunk

    def _each_whole(self, calls: Sequence[_Call]) -> Answers:
        """The answers [rows, 3] about all images to their questions, each row with its image."""
        rows = [(image, q) for call in calls for image in call.images for q in call.questions]
        found = list[Answers]()
        for first in range(0, len(rows), self._limit):
            images, questions = zip(*rows[first : first + self._limit], strict=True)
            texts = [f"{self._before}{question}{self._after}" for question in questions]
            found.append(self._answers_of(self._read(self._inputs(texts, images)).logits[:, -1]))
        return np.concatenate(found)

    def _prefixed(self, calls: Sequence[_Call]) -> Answers:
        """The same, from one reading of each image."""
        import torch

        images = [image for call in calls for image in call.images]
        inputs = self._inputs([self._before] * len(images), images)
        cache = self._read(inputs).past_key_values
        asked = [call.questions for call in calls for _ in call.images]
        device = self._model.device
        places = [place for place, questions in enumerate(asked) for _ in questions]
        cache.batch_select_indices(torch.tensor(places, device=device))
        ends = [f"{question}{self._after}" for questions in asked for question in questions]
        after = self._tokenizer(
            ends, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
        ).to(device)
        mask = torch.cat([inputs["attention_mask"][places], after["attention_mask"]], 1)
        positions = _positions(mask)[:, -after["input_ids"].shape[1] :]
        if self._in_three:
            shift = self._model.model.rope_deltas[places]
            positions = (positions + shift.to(device)).expand(3, -1, -1)
        last = after["attention_mask"].sum(1) - 1
        kept, at = torch.unique(last, return_inverse=True)
        logits = self._forward(
            input_ids=after["input_ids"],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        return self._answers_of(logits[torch.arange(len(places), device=device), at])

    def _read(self, inputs: Any) -> Any:
        """The model's first call for images and texts that are padded on the left."""
        known = {} if self._in_three else {"position_ids": _positions(inputs["attention_mask"])}
        return self._forward(**inputs, **known, use_cache=True, logits_to_keep=1)

    def _forward(self, **inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self._model(**inputs)

    def _answers_of(self, logits: Any) -> Answers:
        """The answers [rows, 3] by the first token's logits [rows, vocabulary]."""
        import torch

        logits = logits.float()
        yes, no, both = (
            logits[:, each].logsumexp(-1) for each in (self._yes, self._no, self._yes + self._no)
        )
        share = (both - logits.logsumexp(-1)).exp()
        answers = [(yes - no).sigmoid(), share, logits.argmax(-1).float()]
        found: Answers = torch.stack(answers, -1).cpu().numpy()
        return found


class Describer(_Chat):
    """A model's replies in words to one instruction about each image, the likeliest token at a
    time, of at most `tokens`.

    Concurrent calls share generations of at most `batch` images, which change a reply by rounding
    only. Raises ModelError.
    """

    def __init__(
        self,
        models: Models,
        reference: str,
        role: str,
        *,
        dtype: Dtype,
        batch: int,
        tokens: int,
        instruction: str,
    ) -> None:
        super().__init__(models, reference, role, dtype)
        self._text = f"{self._before}{self._purged(instruction)}{self._after}"
        self._config, self._limit = greedy(self._model, self._tokenizer, tokens), batch
        try:
            with models.device_lock:
                self._replies([new("RGB", (64, 64), "red")])
        except Exception as error:
            raise ModelError(f"{READS_NO_IMAGE} ({error!r})") from error
        self._batcher = models.batcher(role, self._run, limit=batch, size=len)

    def replies(self, images: Sequence[ImageArray]) -> list[Reply]:
        """One reply per image, in order."""
        return self._batcher([to_image(image) for image in images]) if images else []

    def _run(self, calls: Sequence[Sequence[Image]]) -> list[list[Reply]]:
        images = [image for call in calls for image in call]
        chunks = range(0, len(images), self._limit)
        found = iter([r for at in chunks for r in self._replies(images[at : at + self._limit])])
        return [[next(found) for _ in call] for call in calls]

    def _replies(self, images: Sequence[Image]) -> list[Reply]:
        import torch

        inputs = self._inputs([self._text] * len(images), images)
        with torch.inference_mode():
            written = self._model.generate(**inputs, generation_config=self._config)
        written = written[:, inputs["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            Reply(one_line(text, LONGEST), end and len(text) <= LONGEST)
            for text, end in zip(texts, ended(written, self._config), strict=True)
        ]


def _positions(mask: Any) -> Any:
    """Each token's place among those that the mask [rows, tokens] lets see."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
