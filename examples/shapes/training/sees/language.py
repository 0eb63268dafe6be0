"""The language part's lessons: questions about an image, many in one sequence, and descriptions.

All questions of an image share its tokens: each is a segment that sees the image and itself, so a
row costs little more than its questions' own tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import FastVlmForConditionalGeneration, PreTrainedTokenizerFast

from examples.shapes.training.judge.data import FIELDS
from examples.shapes.training.sees import asking, wording
from examples.shapes.training.sees.looks import Looks
from examples.shapes.training.sees.model import SPOKEN, TOKENS

PREFIX = 1 + TOKENS
PROBED = 2
"""The layer after which a question's last token should know what the question says."""
_NOTHING = -100


@dataclass(frozen=True)
class Lesson:
    """Segments of text behind images: [n, length] each, `segment` -1 where a row is padded.

    `aims` are the next tokens to learn, `weights` their weights; `said` [questions, fields] is what
    each question says, `asked` [questions, 2] the row and place of its last token.
    """

    ids: Tensor
    segment: Tensor
    position: Tensor
    aims: Tensor
    weights: Tensor
    said: Tensor
    asked: Tensor


class Teacher:
    """Makes lessons of looks."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, questions: int) -> None:
        self.tokenizer, self.questions = tokenizer, questions
        ids = tokenizer.convert_tokens_to_ids
        self.assistant, self.stop = ids(wording.ASSISTANT), ids(wording.STOP)
        self.user = ids(wording.USER)
        self.answers = {True: ids(wording.YES), False: ids(wording.NO)}
        self.describe = self._read(wording.DESCRIBE)

    def _read(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text).input_ids
        return found

    def lesson(self, looks: Looks, rng: np.random.Generator) -> Lesson:
        """Questions about each, and the description where there is one."""
        rows = []
        for index in range(len(looks)):
            known = asking.truth(looks, index)
            segments = [
                (self._read(check.text), [self.answers[check.yes]], 1.0, check.said)
                for check in asking.checks(known, self.questions, rng)
            ]
            said = asking.description(known)
            if said is not None:
                words = [*self._read(said), self.stop]
                segments.append((self.describe, words, 1 / len(words), None))
            rows.append(segments)
        return self._packed(rows)

    def _packed(
        self, rows: list[list[tuple[list[int], list[int], float, list[int] | None]]]
    ) -> Lesson:
        length = max(sum(len(q) + len(a) for q, a, _, _ in row) for row in rows)
        shape = (len(rows), length)
        ids, segment = np.zeros(shape, np.int64), np.full(shape, -1)
        position, aims = np.zeros(shape, np.int64), np.full(shape, _NOTHING)
        weights, said, asked = np.zeros(shape, np.float32), [], []
        for i, row in enumerate(rows):
            start = 0
            for number, (question, answer, weight, fields) in enumerate(row):
                # the last word of the answer need not be read
                words = [*question, self.assistant, *answer[:-1]]
                end, last = start + len(words), start + len(question)
                ids[i, start:end], segment[i, start:end] = words, number
                position[i, start:end] = PREFIX + np.arange(len(words))
                aims[i, last:end], weights[i, last:end] = answer, weight
                if fields is not None:
                    said.append(fields)
                    asked.append((i, last))
                start = end
        arrays = (ids, segment, position, aims, weights, np.array(said), np.array(asked))
        return Lesson(*(torch.from_numpy(array) for array in arrays))


def mask(segment: Tensor) -> Tensor:
    """bool [n, 1, all, all]: each place sees the image, and its own segment up to itself."""
    rows = torch.cat([torch.full((len(segment), PREFIX), -2), segment], 1)
    same, image = rows[:, :, None] == rows[:, None], rows[:, None] == -2
    causal = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool).tril()
    return ((same | image) & causal)[:, None]


class Probes(nn.Module):
    """Linear heads, thrown away afterwards, that read off a question's last token what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(SPOKEN, len(v) + 1) for v in FIELDS.values())

    def loss(self, states: Tensor, said: Tensor) -> Tensor:
        """The summed cross-entropies for states [n, SPOKEN]; 0 stands for what is not said."""
        pairs = zip(self.heads, (said + 1).T, strict=True)
        return torch.stack([cross_entropy(head(states), aim) for head, aim in pairs]).sum()


def states(
    model: FastVlmForConditionalGeneration, images: Tensor, lesson: Lesson, user: int
) -> tuple[Tensor, ...]:
    """The Llama's states [n, places, SPOKEN] after each layer.

    `images` are projected image tokens, [n, TOKENS, SPOKEN].
    """
    words = model.get_input_embeddings()
    first = words(torch.full((len(images), 1), user))
    before = torch.arange(PREFIX).expand(len(images), PREFIX)
    found: tuple[Tensor, ...] = model.model.language_model(
        inputs_embeds=torch.cat([first, images, words(lesson.ids)], 1),
        attention_mask=mask(lesson.segment),
        position_ids=torch.cat([before, lesson.position], 1),
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    return found


def answers(
    model: FastVlmForConditionalGeneration, images: Tensor, lesson: Lesson, user: int
) -> Tensor:
    """Logits [questions, words] of each answer's first token."""
    row, place = lesson.asked.T
    last = states(model, images, lesson, user)[-1]
    logits: Tensor = model.lm_head(last[row, PREFIX + place])
    return logits


def losses(
    model: FastVlmForConditionalGeneration,
    probes: Probes,
    images: Tensor,
    lesson: Lesson,
    user: int,
) -> dict[str, Tensor]:
    """The losses of answers, descriptions and probes, for projected image tokens."""
    layers = states(model, images, lesson, user)
    at = lesson.aims != _NOTHING
    logits = model.lm_head(layers[-1][:, PREFIX:][at])
    each = cross_entropy(logits, lesson.aims[at], reduction="none") * lesson.weights[at]
    single = lesson.weights[at] == 1
    row, place = lesson.asked.T
    return {
        "answer": 2 * each[single].mean(),
        "description": each[~single].sum() / len(images),
        "said": 0.1 * probes.loss(layers[PROBED][row, PREFIX + place], lesson.said),
    }
