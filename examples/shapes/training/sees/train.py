"""Train the small model that sees, a FastVLM: it answers questions about images and captions them.

    python -m examples.shapes.training.sees.train vision --out DIR --vae DIR [--generated FILE ...]
    python -m examples.shapes.training.sees.train language --out DIR
    python -m examples.shapes.training.sees.train both --out DIR --vae DIR [--generated FILE ...]

`vision` teaches the tower to name what it sees, with heads that are thrown away. `language` teaches
the Llama to answer about scenes that stand in for images (`symbols`). Neither needs the other, so
they may run side by side. `both` joins them: features are drawn towards the tokens that stood in
for them, while questions and descriptions teach the whole. Each lesson goes on from its own file in
DIR-lessons where there is one. No image was labelled by the umpire.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss
from transformers import FastVlmForConditionalGeneration, PreTrainedTokenizerFast

from examples.shapes.training import common
from examples.shapes.training.looks import load_vae, through_vae
from examples.shapes.training.sees import language, looks, model, vision, wording
from examples.shapes.training.sees.language import Probes, Teacher
from examples.shapes.training.sees.looks import Looks
from examples.shapes.training.sees.symbols import Symbols, imagined

EYES, TALKS, JOINT = "vision", "language", "both"
BATCH, SHOWN, IMAGES, QUESTIONS = 96, 64, 14, 5
"""Images of a step: of `vision`; of `both`, of which so many are asked about; questions of each."""
RATES = {EYES: 3e-3, TALKS: 2e-3, JOINT: 8e-4}
TOWER_RATE = 1.0
"""The tower's part of the rate in the last lesson, in which it has little left to learn."""
DECAY, SAVED = 0.995, 200
ALIGNED = 0.06
"""The part of the last lesson after which questions begin; before, tokens would say nothing."""

Source = Callable[[int], Looks]


class Course(nn.Module):
    """All that learns: the model, and what is thrown away afterwards."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model: FastVlmForConditionalGeneration = model.new_model(tokenizer)
        self.eyes = vision.Eyes(self.model.model.vision_tower)
        self.symbols, self.probes = Symbols(tokenizer), Probes()

    def symbolic(self, shown: Looks) -> Tensor:
        """The image tokens that stand in for images of these."""
        tokens: Tensor = self.symbols(shown, self.model.get_input_embeddings().weight)
        return tokens

    def projected(self, features: Tensor) -> Tensor:
        """The tower's features as image tokens."""
        tokens: Tensor = self.model.model.multi_modal_projector(features)
        return tokens


def source(pool: Looks, generated: Looks | None, fresh: Callable[[int], Looks],
           rng: np.random.Generator) -> Source:  # fmt: skip
    """Batches of drawn images, which are renewed bit by bit, and of generated ones, halves."""

    def batch(count: int) -> Looks:
        if rng.random() < 0.1:
            pool.put(fresh(len(pool) // 100), rng)
        if generated is None:
            return pool.pick(count, rng)
        half = [pool.pick(count // 2, rng), generated.pick(count - count // 2, rng)]
        return looks.joined(half).at(rng.permutation(count))

    return batch


def speak(
    course: Course, teacher: Teacher, budget: common.Budget, rng: np.random.Generator, kept: Path
) -> None:
    """Teach language with scenes instead of images."""
    parts = nn.ModuleList([course.model.model.language_model, course.symbols, course.probes])
    optimizer = torch.optim.AdamW(
        parts.parameters(), RATES[TALKS], betas=(0.9, 0.98), weight_decay=0.02
    )
    for step, progress in budget:
        common.set_rate(optimizer, max(0.15, common.warmup_cosine(progress, 0.03)))
        shown = imagined(IMAGES, rng)
        tokens = course.symbolic(shown)
        lost = language.losses(
            course.model, course.probes, tokens + 0.03 * torch.randn_like(tokens),
            teacher.lesson(shown, rng), teacher.user,
        )  # fmt: skip
        _learn(optimizer, parts, lost)
        _noted(step, budget, lost, partial(_save, parts, kept))
    _save(parts, kept)


def join(
    course: Course, teacher: Teacher, batch: Source, budget: common.Budget,
    rng: np.random.Generator, kept: Path,
) -> Course:  # fmt: skip
    """The average of the course after teaching the whole model with images."""
    course.train().eyes.tower.eval()
    tower = list(course.eyes.tower.parameters())
    held = {id(p) for p in tower} | {id(p) for p in course.symbols.parameters()}
    rest = [p for p in course.parameters() if id(p) not in held]
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": tower, "lr": TOWER_RATE * RATES[JOINT]}],
        RATES[JOINT], betas=(0.9, 0.98), weight_decay=0.02,
    )  # fmt: skip
    average = common.moving_average(course, DECAY)
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress, 0.03))
        shown = batch(SHOWN)
        with torch.autocast("cpu", torch.bfloat16):
            features = model.features(course.eyes.tower, vision.seen(shown)).float()
        tokens = course.projected(features)
        with torch.no_grad():
            aim = course.symbolic(shown)
        lost = {
            "seen": 0.4 * vision.loss(course.eyes.heads(features), vision.truths(shown)),
            "aim": 10 * (1 - cosine_similarity(tokens, aim, -1)).mean(),
            "scale": 20 * mse_loss(tokens, aim),
        }
        if progress >= ALIGNED:
            lesson = teacher.lesson(shown.at(np.arange(IMAGES)), rng)
            lost |= language.losses(
                course.model, course.probes, tokens[:IMAGES], lesson, teacher.user
            )
        _learn(optimizer, course, lost)
        average.update_parameters(course)
        _noted(step, budget, lost, partial(_save, average.module, kept))
    _save(average.module, kept)
    return average.module.eval()


def _learn(optimizer: torch.optim.Optimizer, learner: nn.Module, lost: dict[str, Tensor]) -> None:
    optimizer.zero_grad()
    torch.stack(list(lost.values())).sum().backward()
    nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimizer.step()


def _noted(
    step: int, budget: common.Budget, lost: dict[str, Tensor], save: Callable[[], None]
) -> None:
    if step % 50 == 0:
        common.log(step, budget, **{name: part.item() for name, part in lost.items()})
    if step % SAVED == SAVED - 1:
        save()


def _save(module: nn.Module, file: Path) -> None:
    """Write the weights whole: a lesson that is broken off goes on from them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    save_file({k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}, fresh)
    fresh.replace(file)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = common.arguments(__doc__, seconds=1500)
    parser.add_argument("lesson", choices=[EYES, TALKS, JOINT])
    parser.add_argument("--vae", type=Path, help="autoencoder to see half of the images through")
    parser.add_argument("--generated", type=Path, nargs="*", default=[], help="by sees.images")
    parser.add_argument("--pool", type=int, default=6000, help="drawn images at a time")
    return parser.parse_args()


def main() -> None:
    """Give one lesson; the last one writes the model and prints its quality."""
    given = arguments()
    rng = common.seeded(43_000 + given.seed)
    tokenizer = wording.new_tokenizer(np.random.default_rng(0))
    course, teacher = Course(tokenizer), Teacher(tokenizer, QUESTIONS)
    lessons = given.out.with_name(f"{given.out.name}-lessons")
    files = {name: lessons / f"{name}.safetensors" for name in (EYES, TALKS, JOINT)}
    budget = common.Budget(given.seconds, given.steps)
    if given.lesson == TALKS:
        speak(course, teacher, budget, rng, files[TALKS])
        return
    through = given.vae and partial(through_vae, vae=load_vae(given.vae))
    fresh = partial(looks.drawn, rng=rng, through=through)
    generated = looks.joined([looks.load(f) for f in given.generated]) if given.generated else None
    batch = source(fresh(given.pool), generated, fresh, rng)
    held_out = looks.drawn(600, np.random.default_rng(990_000 + given.seed), through)
    recall(course, files, given.lesson)
    budget = common.Budget(given.seconds, given.steps)
    if given.lesson == EYES:
        save = partial(_save, file=files[EYES])
        eyes = vision.train(course.eyes, partial(batch, BATCH), budget, RATES[EYES], save)
        common.report(**vision.accuracy(eyes, held_out))
        return
    course = join(course, teacher, batch, budget, rng, files[JOINT])
    model.save(course.model, tokenizer, given.out)
    common.report(**vision.accuracy(course.eyes, held_out))


def recall(course: Course, files: dict[str, Path], lesson: str) -> None:
    """Go on from a lesson's own file, else the last one from those of the two before."""
    if files[JOINT].exists() and lesson == JOINT:
        course.load_state_dict(load_file(files[JOINT]))
        return
    if files[EYES].exists():
        course.eyes.load_state_dict(load_file(files[EYES]))
    if lesson == JOINT:
        parts = nn.ModuleList([course.model.model.language_model, course.symbols, course.probes])
        parts.load_state_dict(load_file(files[TALKS]))


if __name__ == "__main__":
    main()
