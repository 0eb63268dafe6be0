"""A worker whose models cost nothing, to measure and to break the machinery around them.

A supervisor starts `python -m tests.harness.stand_in FD` in place of the real worker. Queue,
leases, records and store are real; an image is one flat colour, made after STAND_IN_SECONDS, which
is 0 unless set. If STAND_IN_TALLY names a file, each execution adds a line with its job's seed, its
process and its model, divided by spaces.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.assemble.assembly import Assembly
from pipeline.job import Context, ImageArray, Job, JudgeRequest, RenderRequest, Score
from pipeline.ports import Ports, Pruner
from pipeline.profile import Profile, TemplateWriterProfile
from pipeline.record import RunSpec
from pipeline.safety.guards import Guards
from pipeline.telemetry import charge
from pipeline.watchdog import beat
from pipeline.writing.template import TemplateWriter
from workers.worker.main import main

SECONDS = float(os.environ.get("STAND_IN_SECONDS", "0"))
TALLY = os.environ.get("STAND_IN_TALLY", "")
COMMAND = (sys.executable, "-m", "tests.harness.stand_in")


class NoRetriever:
    """The Retriever port without a knowledge base."""

    def retrieve(self, job: Job) -> Context:
        """No passages."""
        return Context()


@dataclass(frozen=True)
class FlatRenderer:
    """The Renderer port: a flat colour that the seed decides."""

    seconds: float

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """An image for each seed, after the wait."""
        if TALLY:
            _count(request)
        if self.seconds:
            time.sleep(self.seconds)
        charge("renderer", self.seconds)
        beat()
        shape = (request.height, request.width, 3)
        return [np.full(shape, seed % 256 / 255, np.float32) for seed in request.seeds]


def _count(request: RenderRequest) -> None:
    # unbuffered and appended: a line is whole, whoever is killed when
    with Path(TALLY).open("ab", buffering=0) as file:
        file.write(f"{request.seeds[0]} {os.getpid()} {request.model}\n".encode())


class ApprovingJudge:
    """The Judge port: every image is good."""

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """Full marks."""
        return [Score(raw=1.0, calibrated=1.0) for _ in images]


class StandInAssembly(Assembly):
    """Real records, and ports that cost nothing."""

    def load(self, profile: Profile) -> None:
        """There is nothing to load."""

    def ports(self, spec: RunSpec) -> Ports:
        """The ports of any run."""
        return Ports(
            guard=Guards(),
            retriever=NoRetriever(),
            writer=TemplateWriter(TemplateWriterProfile()),
            inputs=self.inputs(spec),
            renderer=FlatRenderer(SECONDS),
            judge=ApprovingJudge(),
            records=self.run_folder(spec.run).records,
            run=spec.run,
            judge_against="prompt",
            models=dict.fromkeys(("", *spec.profile.get("renderers", ())), spec.models),
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), StandInAssembly)
