"""What is no image, or no new one, never wins a contest, whatever the judge makes of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from examples.shapes import world
from pipeline.job import ImageArray
from pipeline.ports import Judge
from pipeline.record import Status
from pipeline.safety.guards import Guards, ImageGuard
from tests.harness.rendered import Rendered, shipped_judge

PROMPT = "a large red circle in the center on a white background"
SCENE = world.Scene((world.Thing("circle", "red", "large", "center"),), "white")
OTHER = world.Scene((world.Thing("cross", "black", "small", "left"),), "teal")


def drawn(seed: int, scene: world.Scene = SCENE) -> ImageArray:
    image: ImageArray = world.draw(scene, np.random.default_rng(seed)) / np.float32(255)
    return image


RIGHT, WRONG = drawn(0), drawn(1, OTHER)
NAN = np.where(np.arange(64)[:, None, None] > 60, np.float32(np.nan), RIGHT)
BAD = {
    "nan": NAN,
    "infinite": np.where(np.isnan(NAN), np.float32(np.inf), NAN),
    "black": np.zeros_like(RIGHT),
    "constant": np.full_like(RIGHT, 0.8),
    "constant in each channel": np.full_like(RIGHT, 1) * np.float32((0.84, 0.16, 0.18)),
    "without channels": RIGHT[..., 0],
}


@pytest.fixture(scope="module")
def judge(models_root: Path) -> Judge:
    return shipped_judge(models_root)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_no_image_never_wins(judge: Judge, bad: ImageArray) -> None:
    rendered = Rendered([bad, WRONG, bad], judge)
    outcome = rendered.run(keywords=PROMPT)
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 1)
    assert rendered.committed is WRONG
    alone = Rendered([bad], judge)
    outcome = alone.run(keywords=PROMPT)
    assert outcome.status is Status.FAILED
    assert outcome.reason.startswith("no candidate is a valid image: ")
    assert alone.committed is None


@pytest.mark.parametrize("mode", ["best_of", "first_above"])
def test_a_repeated_image_never_wins(judge: Judge, mode: str) -> None:
    rendered = Rendered([WRONG, WRONG.copy(), drawn(2, SCENE), WRONG + np.float32(0.001)], judge)
    outcome = rendered.run(keywords=PROMPT, contest=mode, threshold=0.999)
    scores = [candidate.score for candidate in outcome.candidates]
    assert [score.reason for score in scores if score] == [
        "",
        "it repeats another candidate",
        "",
        "it repeats another candidate",
    ]
    assert outcome.winner == 2


def test_images_of_one_scene_are_no_repetitions(judge: Judge) -> None:
    outcome = Rendered([drawn(seed) for seed in range(16)], judge).run(keywords=PROMPT)
    assert all(candidate.score and candidate.score.valid for candidate in outcome.candidates)
    assert outcome.status is Status.ACCEPTED


class Redness:
    """The chance is the part of an image that is red."""

    def load(self) -> None:
        """There is no model."""

    def chances(self, images: Sequence[ImageArray]) -> list[float]:
        """By pixels."""
        return [float((each @ np.float32((1, -1, -1)) > 0.3).mean()) for each in images]


@pytest.mark.parametrize("mode", ["best_of", "first_above"])
def test_a_candidate_that_a_guard_refuses_never_wins(judge: Judge, mode: str) -> None:
    guard = Guards(images=[ImageGuard("red", "drop", ("output",), 0.05, Redness())])
    rendered = Rendered([RIGHT, WRONG, drawn(3)], judge, guard)
    outcome = rendered.run(keywords=PROMPT, contest=mode)
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 1)
    assert rendered.committed is WRONG
    refused = Rendered([np.zeros_like(RIGHT), RIGHT, drawn(3)], judge, guard)
    outcome = refused.run(keywords=PROMPT, contest=mode)
    assert (outcome.status, outcome.winner, refused.committed) == (Status.BLOCKED, None, None)
    assert outcome.reason.startswith("guard 'red' at output: chance 0.")
    assert outcome.reason.endswith(", threshold 0.05")


def test_a_guard_that_blocks_keeps_no_other_candidate(judge: Judge) -> None:
    guard = Guards(images=[ImageGuard("red", "block", ("output",), 0.05, Redness())])
    rendered = Rendered([WRONG, RIGHT], judge, guard)
    outcome = rendered.run(keywords=PROMPT)
    assert (outcome.status, outcome.winner, rendered.committed) == (Status.BLOCKED, None, None)
