"""What is no image, or no new one, never wins a contest, whatever the judge makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from examples.shapes import world
from pipeline.job import Brief, Context, ImageArray, Job, RenderRequest
from pipeline.judging.clip import ClipJudge
from pipeline.judging.panel import Panel
from pipeline.media.inputs import StoredInputs
from pipeline.ports import Judge, Ports, Pruner
from pipeline.profile import Profile
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.safety.guards import Guards
from tests.harness import small_models
from tests.harness.jobs import make_job

PROMPT = "a large red circle in the center on a white background"
SCENE = world.Scene((world.Thing("circle", "red", "large", "center"),), "white")
OTHER = world.Scene((world.Thing("cross", "black", "small", "left"),), "teal")


def drawn(seed: int, scene: world.Scene = SCENE) -> ImageArray:
    image: ImageArray = world.draw(scene, np.random.default_rng(seed)) / np.float32(255)
    return image


def torn(image: ImageArray) -> ImageArray:
    cut = image.copy()
    cut[40:] = 0.5
    return cut


RIGHT, WRONG = drawn(0), drawn(1, OTHER)
NAN = np.where(np.arange(64)[:, None, None] > 60, np.float32(np.nan), RIGHT)
BAD = {
    "nan": NAN,
    "infinite": np.where(np.isnan(NAN), np.float32(np.inf), NAN),
    "black": np.zeros_like(RIGHT),
    "constant": np.full_like(RIGHT, 0.8),
    "constant in each channel": np.full_like(RIGHT, 1) * np.float32((0.84, 0.16, 0.18)),
    "half decoded": torn(RIGHT),
    "without channels": RIGHT[..., 0],
}


@dataclass
class Rendered:
    """Every port but the judge; the renderer answers with these images."""

    images: Sequence[ImageArray]
    judge: Judge
    committed: ImageArray | None = None

    def retrieve(self, job: Job) -> Context:
        return Context()

    def write(self, job: Job, context: Context) -> Brief:
        return Brief(text=PROMPT, prompt=PROMPT)

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        return [self.images[seed] for seed in request.seeds]

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        self.committed = image
        return outcome

    def run(self, **fields: object) -> Outcome:
        job = make_job(candidates=len(self.images), seed=0, **fields)
        inputs = StoredInputs(None, None)  # type: ignore[arg-type] # the row names no images
        ports = Ports(
            guard=Guards(), retriever=self, writer=self, inputs=inputs, renderer=self,
            judge=self.judge, records=self, run="r", judge_against="prompt", models={"": {}},
        )  # fmt: skip
        return run_job(job, ports)


@pytest.fixture(scope="module")
def judge(models_root: Path) -> Judge:
    profile = Profile.load("shapes")
    (section,) = profile.judge
    models = small_models.shipped(models_root)
    return Panel([(section, ClipJudge(models, section))], profile.panel)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_no_image_never_wins(judge: Judge, bad: ImageArray) -> None:
    rendered = Rendered([bad, WRONG, bad], judge)
    outcome = rendered.run()
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 1)
    assert rendered.committed is WRONG
    alone = Rendered([bad], judge)
    outcome = alone.run()
    assert outcome.status is Status.FAILED
    assert outcome.reason.startswith("no candidate is a valid image: ")
    assert alone.committed is None


@pytest.mark.parametrize("mode", ["best_of", "first_above"])
def test_a_repeated_image_never_wins(judge: Judge, mode: str) -> None:
    rendered = Rendered([WRONG, WRONG.copy(), drawn(2, SCENE), WRONG + np.float32(0.001)], judge)
    outcome = rendered.run(contest=mode, threshold=0.999)
    scores = [candidate.score for candidate in outcome.candidates]
    assert [score.reason for score in scores if score] == [
        "",
        "it repeats another candidate",
        "",
        "it repeats another candidate",
    ]
    assert outcome.winner == 2


def test_images_of_one_scene_are_no_repetitions(judge: Judge) -> None:
    outcome = Rendered([drawn(seed) for seed in range(16)], judge).run()
    assert all(candidate.score and candidate.score.valid for candidate in outcome.candidates)
    assert outcome.status is Status.ACCEPTED
