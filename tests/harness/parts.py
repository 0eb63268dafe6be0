"""Ports that do the least their docstrings allow, for tests of what `run_job` makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import Blocked, Unavailable
from pipeline.job import (
    SEED_SPACE,
    Brief,
    Check,
    Context,
    Embedding,
    ImageArray,
    InputImage,
    Job,
    JudgeRequest,
    LoadedImage,
    Reference,
    Rejected,
    RenderRequest,
    Score,
    ScorePart,
)
from pipeline.ports import Ports, Pruner
from pipeline.record import Outcome
from pipeline.telemetry import rendered_by
from tests.harness.jobs import make_job

JOB = make_job(
    id="j1", candidates=4, width=16, height=16, seed=SEED_SPACE - 2, mode="generated", wave=2
)


@dataclass
class Parts:
    """All ports at once; `scores` are handed out in order."""

    scores: Sequence[Score]
    error: Exception | None = None
    blocked: str = ""
    context: Context | Unavailable = field(default_factory=Context)
    requests: list[RenderRequest] = field(default_factory=list)
    kept: list[ImageArray] = field(default_factory=list)
    committed: list[tuple[Outcome, ImageArray | None]] = field(default_factory=list)

    def check_text(self, text: str, place: str) -> None:
        if self.blocked and self.blocked in text:
            raise Blocked(self.blocked)

    def check_inputs(self, job: Job) -> None:
        """None is refused."""

    def screened(self, context: Context) -> Context:
        return context

    def refusals(self, images: Sequence[ImageArray]) -> Sequence[str]:
        return [""] * len(images)

    def retrieve(self, job: Job) -> Context:
        if isinstance(self.context, Unavailable):
            raise self.context
        return self.context

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        if self.error:
            raise self.error
        return Brief(text="text", prompt=f"prompt of {job.keywords}")

    def keep(self, image: ImageArray, name: str) -> InputImage:
        self.kept.append(image)
        height, width, _ = image.shape
        return InputImage(path=name, sha256=f"{len(self.kept):064x}", width=width, height=height)

    def load(self, image: InputImage, width: int, height: int) -> LoadedImage:
        if image.path.startswith("candidate "):
            return LoadedImage(image.sha256, self.kept[int(image.sha256, 16) - 1])
        return LoadedImage(image.sha256, np.full((height, width, 3), 0.5, np.float32))

    def embed(self, image: InputImage) -> Embedding:
        return (float(image.width),)

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> Sequence[ImageArray | None]:
        self.requests.append(request)
        rendered_by("parts")
        return [np.full((16, 16, 3), seed % 97 / 97, np.float32) for seed in request.seeds]

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        done = sum(len(request.seeds) for request in self.requests)
        return list(self.scores[done - len(images) : done])

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        self.committed.append((outcome, image))
        return outcome

    def ports(self) -> Ports:
        return Ports(
            guard=self, retriever=self, writer=self, inputs=self, renderer=self, judge=self,
            records=self, run="r", judge_against="prompt", models={"": {}},
        )  # fmt: skip


def scores(*values: float) -> list[Score]:
    return [Score(raw=value, calibrated=value) for value in values]


INVALID = Score(raw=0, calibrated=0, valid=False, reason="blank")


def image(name: str) -> Reference:
    return Reference(
        id=name,
        text="",
        score=1,
        image=f"knowledge/images/{0:064x}.png",
        scale=0.5,
        embedding=(1.0,),
    )


CHECKS = (Check(question="Is it red?"), Check(question="Is it a circle?"))


def answered(chance: float, *answers: float) -> Score:
    part = ScorePart(judge="questions", raw=chance, calibrated=chance, answers=answers)
    return Score(raw=chance, calibrated=chance, parts=(part,))
