"""Jobs whose candidates are given images, for tests of what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.job import Brief, Context, ImageArray, Job, Rejected, RenderRequest
from pipeline.judging.clip import ClipJudge
from pipeline.judging.panel import Panel
from pipeline.media.inputs import StoredInputs
from pipeline.ports import Guard, Judge, Ports, Pruner, Renderer
from pipeline.profile import Profile
from pipeline.record import Outcome
from pipeline.run import run_job
from pipeline.safety.guards import Guards
from tests.harness import small_models
from tests.harness.jobs import make_job


def shipped_judge(root: Path) -> Judge:
    """The judge of the profile `shapes`."""
    profile = Profile.load("shapes")
    models = small_models.shipped(root)
    judges = [(each, ClipJudge(models, each)) for each in profile.judge]  # type: ignore[arg-type]
    return Panel(judges, profile.panel)


@dataclass
class Rendered:
    """Every port but judge and guard; the prompt is the keywords, and the candidates are `images`,
    in order.
    """

    images: Sequence[ImageArray]
    judge: Judge
    guard: Guard = field(default_factory=Guards)
    committed: ImageArray | None = None

    def retrieve(self, job: Job) -> Context:
        """Nothing."""
        return Context()

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """The keywords."""
        return Brief(text=job.keywords, prompt=job.keywords)

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """The images by number, which is the seed."""
        return [self.images[seed] for seed in request.seeds]

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        """Remember the image."""
        self.committed = image
        return outcome

    def ports(self, renderer: Renderer | None = None) -> Ports:
        """These ports, with another renderer if one is given."""
        inputs = StoredInputs(None, None)  # type: ignore[arg-type] # the row names no images
        return Ports(
            guard=self.guard, retriever=self, writer=self, inputs=inputs, renderer=renderer or self,
            judge=self.judge, records=self, run="r", judge_against="prompt", models={"": {}},
        )  # fmt: skip

    def run(self, **fields: object) -> Outcome:
        """A job's outcome."""
        return run_job(make_job(candidates=len(self.images), seed=0, **fields), self.ports())
