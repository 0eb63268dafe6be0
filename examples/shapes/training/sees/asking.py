"""Questions of an image: captions and phrases about it, true ones and false, and its description.

A caption that names the background speaks of the whole image: it is false where a thing is
unclear, missing, or one too many. A phrase without one is true if the image shows it, whatever else
it shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from examples.shapes import world
from examples.shapes.training.judge import data as judge_data
from examples.shapes.training.sees import wording
from examples.shapes.training.sees.looks import Looks
from examples.shapes.world.scene import pick

BLOB = "blob"
_FORMS = (
    "Is there {}? Answer with Yes or No.", "Is there {} in the image?", "Does the image show {}?",
    "Can you see {}?", "Is {} shown?",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A question with its right answer, and what its text says (see `judge_data.code`)."""

    text: str
    yes: bool
    said: list[int]


@dataclass(frozen=True)
class Truth:
    """One image's scene, which of its things are clear, and whether it is flawed."""

    scene: world.Scene
    clear: tuple[bool, ...]
    flawed: bool

    @property
    def whole(self) -> bool:
        return all(self.clear) and not self.flawed

    def shows(self, said: dict[str, Any]) -> bool | None:
        """True if the image shows what is said, in the form of `world.parse`; None if unsettled."""
        things = said["things"]
        if not things:
            return said["background"] == self.scene.background
        if "background" in said:
            return self.whole and world.agrees(said, self.scene)
        if self.flawed:
            return None
        if len(things) == 2:
            return self.whole and world.agrees(said, self.scene)
        if len(self.scene.things) == 2 and things[0].keys() & {"size", "position"}:
            return None
        own = [
            {k: v for k, v in vars(t).items() if v}
            for t, ok in zip(self.scene.things, self.clear, strict=True)
            if ok
        ]
        return any(things[0].items() <= thing.items() for thing in own)


def truth(looks: Looks, index: int) -> Truth:
    """The truth of one of the images."""
    scene = looks.scenes[index]
    clear = tuple((~looks.spoiled[index][: len(scene.things)]).tolist())
    return Truth(scene, clear, bool(looks.flawed[index]))


def checks(known: Truth, count: int, rng: np.random.Generator) -> list[Check]:
    """Up to so many questions, none twice: the whole caption, then others, true and false."""
    texts = [world.prompt(known.scene), *(_text(known, rng) for _ in range(2 * count))]
    found: list[Check] = []
    for text in dict.fromkeys(texts):
        yes = known.shows(said := world.parse(text))
        if yes is not None and len(found) < count:
            asked = _asked(text, rng) if found else wording.question(text)
            found.append(Check(asked, yes, _code(said)))
    return found


def _code(said: dict[str, Any]) -> list[int]:
    if said["things"]:
        return judge_data.code(said)
    return [judge_data.UNSAID, *judge_data.code(said | {"things": [{}]})[1:]]


def _asked(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.88:
        return wording.question(text)
    return pick(rng, _FORMS).format(text)


def _text(known: Truth, rng: np.random.Generator) -> str:
    """A caption or phrase about the scene as it is or with one thing otherwise."""
    wrong = rng.random() < (0.62 if known.whole else 0.35)
    scene = _otherwise(known.scene, rng) if wrong else known.scene
    kind = rng.random()
    if kind < 0.3:
        return world.prompt(scene)
    if kind < 0.45:
        return judge_data.sentence(scene, rng)
    if kind < 0.6 and len(scene.things) == 2:
        return world.prompt(scene, frozenset({"arrangement"} | _some(rng, "colour")))
    if kind < 0.7:
        return f"a {scene.background} background"
    return _phrase(scene, rng)


def _otherwise(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    if rng.random() < 0.85:
        return judge_data.otherwise(scene, rng)
    return world.sample_scene(rng, two=0.5)


def _phrase(scene: world.Scene, rng: np.random.Generator) -> str:
    """One thing with some of its traits."""
    thing = pick(rng, scene.things)
    alone = world.Scene((thing,), scene.background)
    said = {"colour"} if rng.random() < 0.6 else set()
    if len(scene.things) == 1:
        said |= _some(rng, "size", "position")
    else:
        alone = replace(alone, things=(replace(thing, size=None, position=None),))
    return world.prompt(alone, frozenset(said))


def _some(rng: np.random.Generator, *names: str) -> set[str]:
    return {name for name in names if rng.random() < 0.45}


def description(known: Truth) -> str | None:
    """The caption to give: a thing without a clear shape is a blob; None for a flawed image."""
    if known.flawed:
        return None
    pairs = zip(known.scene.things, known.clear, strict=True)
    things = tuple(thing if ok else replace(thing, shape=BLOB) for thing, ok in pairs)
    return world.prompt(replace(known.scene, things=things))


def corpus(looks: Looks, index: int, rng: np.random.Generator) -> Iterator[str]:
    """Texts of every kind about one of the images, for the tokenizer to learn from."""
    known = truth(looks, index)
    yield from (check.text for check in checks(known, 6, rng))
    yield from (wording.DESCRIBE, description(known) or "", world.caption(known.scene, rng))
