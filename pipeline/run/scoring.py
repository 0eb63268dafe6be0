"""The scores of a job's images, by its guard and its judge."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pipeline.job import Brief, Context, ImageArray, Job, JudgeRequest, Score
from pipeline.media.checks import repeated
from pipeline.ports import Ports
from pipeline.run.requests import judge_request
from pipeline.telemetry import stage

Scoring = Callable[[Sequence[ImageArray]], Sequence[Score]]
"""The judge bound to a job: one score per image, in order."""


def scoring_of(
    job: Job, context: Context, brief: Brief, ports: Ports, *, previews: bool = False
) -> Scoring:
    """The judge, bound to a job, for its finished images or for previews. Raises JobError."""
    request = judge_request(job, context, brief, ports)
    return partial(judge, ports, replace(request, previews=previews))


def judge(ports: Ports, request: JudgeRequest, images: Sequence[ImageArray]) -> Sequence[Score]:
    """The judge's score of each image, in order, timed."""
    with stage("judge"):
        return ports.judge.score(images, request)


def scored(
    images: Sequence[ImageArray],
    earlier: Sequence[ImageArray | None],
    scoring: Scoring,
    ports: Ports,
) -> Sequence[Score]:
    """The scores of finished images. One that a guard refuses or that repeats another candidate's
    is invalid, and no judge sees it.
    """
    with stage("judge"):
        refused = ports.guard.refusals(images)
        invalid = dict[int, Score]()
        for place, (image, reason) in enumerate(zip(images, refused, strict=True)):
            if reason:
                invalid[place] = Score(
                    raw=0, calibrated=0, valid=False, reason=reason, blocked=True
                )
            elif repeated(image, [*earlier, *images[:place]]) is not None:
                reason = "it repeats another candidate"
                invalid[place] = Score(raw=0, calibrated=0, valid=False, reason=reason)
        left = [image for place, image in enumerate(images) if place not in invalid]
        scores = iter(scoring(left) if left else ())
    return [invalid[at] if at in invalid else next(scores) for at in range(len(images))]
