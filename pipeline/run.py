"""The whole flow of one job. Called from many threads; the ports merge what can be merged."""

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, zip_longest

from pipeline.cancellation import check
from pipeline.errors import Blocked, JobError, Unavailable
from pipeline.job import (
    Brief,
    Candidate,
    CandidateRecord,
    Context,
    ImageArray,
    Job,
    Outcome,
    Reference,
    Refinement,
    RenderRequest,
    Rung,
    Score,
    Status,
    timestamp,
    version,
)
from pipeline.judging import contest
from pipeline.judging.missing import missing_phrases
from pipeline.masking import mask
from pipeline.ports import Ports
from pipeline.telemetry import Meter, metered, stage

Scoring = Callable[[Sequence[ImageArray]], Sequence[Score]]
"""Scores a job's images, in order."""


def run_job(job: Job, ports: Ports) -> Outcome:
    """Take one job from keywords to a committed outcome.

    What is the job's own fault ends as `blocked` or `failed`; Unavailable and everything
    unforeseen is raised, for the caller to try the job again.
    """
    context, brief, candidates = Context(), None, list[Candidate]()
    refinement, status, reason = None, Status.FAILED, ""
    with metered() as meter:
        try:
            ports.guard.check_text(job.keywords)
            with stage("retrieve"):
                context = _retrieve(job, ports)
            with stage("write"):
                brief = ports.writer.write(job, context)
            ports.guard.check_text(brief.prompt)
            candidates = hold_contest(job, context, brief, ports)
            if contest.another_round(job, [c.score for c in candidates]):
                refinement = refine(job, context, brief, candidates, ports)
            status, reason = _status(job, candidates)
        except Blocked as error:
            status, reason = Status.BLOCKED, error.detail
        except JobError as error:
            status, reason = Status.FAILED, error.detail
    outcome = _receipt(job, ports, status, reason, context, brief, refinement, candidates, meter)
    return ports.records.commit(outcome, _kept(outcome, candidates))


def failed(job: Job, ports: Ports, reason: str) -> Outcome:
    """Commit that a job failed, where running it ended in something unforeseen."""
    outcome = _receipt(job, ports, Status.FAILED, reason, Context(), None, None, [], Meter())
    return ports.records.commit(outcome, None)


def hold_contest(
    job: Job, context: Context, brief: Brief, ports: Ports, begin: int = 0
) -> list[Candidate]:
    """Render and judge candidates, wave by wave, until the contest is decided. The first of them
    has the index `begin`.
    """
    scoring, candidates = scoring_of(job, brief, ports), list[Candidate]()
    while count := contest.next_wave(job, [c.score for c in candidates]):
        check()
        first = begin + len(candidates)
        seeds = tuple(job.candidate_seed(first + offset) for offset in range(count))
        race = Race(contest.rungs(job), scoring, count)
        with stage("render"):
            images = ports.renderer.render(render_request(job, context, brief, seeds), race)
        scores = iter(scoring([image for image in images if image is not None]))
        for offset, (seed, image) in enumerate(zip(seeds, images, strict=True)):
            score = None if image is None else next(scores)
            previews = tuple(race.previews[offset])
            candidates.append(Candidate(first + offset, seed, image, score, previews))
    return candidates


def refine(
    job: Job, context: Context, brief: Brief, candidates: list[Candidate], ports: Ports
) -> Refinement | None:
    """Find images of what the best candidate lacks, and add a contest of candidates that they
    steer too; None where no candidate is valid.

    Shalev-Arkushin et al., "ImageRAG" (2025, arXiv:2502.09411): there a vision-language model names
    the missing concepts, here the judge does.
    """
    best = contest.winner([c.score for c in candidates])
    image = None if best is None else candidates[best].image
    if image is None:
        return None

    def passes(text: str) -> bool:
        return contest.passes(job, _judge(ports, text, [image])[0])

    missing, first = missing_phrases(judged_text(job, brief, ports), passes), len(candidates)
    references = _more_references(job, context, missing, ports)
    if references:
        candidates += hold_contest(job, context.joined(references), brief, ports, first)
    return Refinement(missing=missing, references=references, first=first)


class Race:
    """The Pruner of one wave: it has previews judged, and lets the contest decide."""

    def __init__(self, rungs: Sequence[Rung], scoring: Scoring, count: int) -> None:
        self.points = [rung.at for rung in rungs]
        self.previews: list[list[Score]] = [[] for _ in range(count)]
        self._rungs, self._judge = iter(rungs), scoring
        self._left = list(range(count))

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """The best of those that are left."""
        scores = self._judge(previews)
        for index, score in zip(self._left, scores, strict=True):
            self.previews[index].append(score)
        kept = contest.survivors(next(self._rungs), scores)
        self._left = [self._left[place] for place in kept]
        return kept


def render_request(
    job: Job, context: Context, brief: Brief, seeds: tuple[int, ...]
) -> RenderRequest:
    """What the renderer is asked for: the brief's prompt, and the images that were found, at the
    job's settings.
    """
    embeddings = tuple(r.embedding for r in context.references if r.scale)
    return RenderRequest(
        prompt=brief.prompt,
        negative=brief.negative,
        width=job.width,
        height=job.height,
        steps=job.steps,
        guidance=job.guidance,
        seeds=seeds,
        references=embeddings,
        reference_scale=job.reference_scale if embeddings else 0.0,
    )


def scoring_of(job: Job, brief: Brief, ports: Ports) -> Scoring:
    """The judge, bound to the text that the profile names for this job."""
    return partial(_judge, ports, judged_text(job, brief, ports))


def judged_text(job: Job, brief: Brief, ports: Ports) -> str:
    """What a job's images are to show."""
    texts = {"prompt": brief.prompt, "text": brief.text, "keywords": job.keywords}
    return texts[ports.judge_against]


def _judge(ports: Ports, text: str, images: Sequence[ImageArray]) -> Sequence[Score]:
    with stage("judge"):
        return ports.judge.score(images, text)


def _retrieve(job: Job, ports: Ports) -> Context:
    try:
        return ports.retriever.retrieve(job)
    except Unavailable as error:
        if job.needs_context:
            raise
        return Context(unavailable=str(error))


def _more_references(
    job: Job, context: Context, missing: Sequence[str], ports: Ports
) -> tuple[Reference, ...]:
    """At most `job.references` images that the job does not have yet, the best for each text."""
    known = {each.id for each in context.references}
    asked = {"passages": 0, "references": job.references + len(known)}
    with stage("retrieve"):
        answers = [
            _retrieve(job.model_copy(update={"keywords": text, **asked}), ports).references
            for text in missing
        ]
    found = {each.id: each for each in chain(*zip_longest(*answers)) if each}
    return tuple(each for key, each in found.items() if key not in known)[: job.references]


def _status(job: Job, candidates: list[Candidate]) -> tuple[Status, str]:
    scores = [c.score for c in candidates if c.score]
    best = contest.winner(scores)
    if best is None:
        return Status.FAILED, f"no candidate is a valid image: {scores[0].reason}"
    score = scores[best]
    if contest.passes(job, score):
        return Status.ACCEPTED, ""
    return Status.BELOW_GATE, f"best score {score.calibrated:.3f} < threshold {job.threshold:.3f}"


def _kept(outcome: Outcome, candidates: list[Candidate]) -> ImageArray | None:
    return None if outcome.winner is None else candidates[outcome.winner].image


def _receipt(
    job: Job,
    ports: Ports,
    status: Status,
    reason: str,
    context: Context,
    brief: Brief | None,
    refinement: Refinement | None,
    candidates: list[Candidate],
    meter: Meter,
) -> Outcome:
    return Outcome(
        run=ports.run,
        job_id=job.id,
        status=status,
        reason=mask(reason),
        job=job,
        row=job.row,
        keywords=job.keywords,
        context=context,
        brief=brief,
        refinement=refinement,
        candidates=tuple(
            CandidateRecord(index=c.index, seed=c.seed, score=c.score, previews=c.previews)
            for c in candidates
        ),
        winner=contest.winner([c.score for c in candidates]),
        models=ports.models,
        renderer=meter.renderer,
        seconds=meter.wall,
        device_seconds=meter.device,
        attempt=uuid.uuid4().hex,
        created_at=timestamp(),
        version=version(),
        notices=tuple(meter.notices),
    )
