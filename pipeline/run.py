"""The whole flow of one job. Called from many threads; the ports batch their model calls."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, zip_longest

from pipeline.cancellation import check
from pipeline.emphasis import plain, sections_of
from pipeline.errors import Blocked, JobError, Unavailable
from pipeline.job import (
    MASKED,
    Brief,
    Candidate,
    Context,
    Control,
    Embedding,
    ImageArray,
    InputImage,
    Job,
    JudgeRequest,
    LoadedImage,
    Reference,
    Rejected,
    RenderRequest,
    Rung,
    Score,
    TokenCount,
)
from pipeline.judging import contest
from pipeline.masking import mask
from pipeline.media.checks import repeated
from pipeline.media.image import luminance
from pipeline.ports import Inputs, Ports
from pipeline.record import KEPT, CandidateRecord, Outcome, Refinement, Status, timestamp, version
from pipeline.telemetry import Meter, metered, notice, stage

Scoring = Callable[[Sequence[ImageArray]], Sequence[Score]]
"""The judge bound to a job: one score per image, in order."""


def run_job(job: Job, ports: Ports) -> Outcome:
    """Take one job from keywords to a committed outcome.

    A fault of the job's own ends as `blocked` or `failed`. Unavailable and unforeseen errors are
    raised, for the caller to try the job again.
    """
    execution = Execution(job, ports)
    with metered() as execution.meter:
        try:
            execution.retrieve()
            execution.hold(execution.write())
            while contest.another_round(job, execution.scores, len(execution.rounds)):
                if not execution.refine():
                    break
            status, reason = execution.status()
        except Blocked as error:
            status, reason = Status.BLOCKED, error.detail
        except JobError as error:
            status, reason = Status.FAILED, error.detail
    return execution.commit(status, reason)


def failed(job: Job, ports: Ports, reason: str) -> Outcome:
    """Commit that a job failed, after an unforeseen error."""
    return Execution(job, ports).commit(Status.FAILED, reason)


@dataclass(frozen=True)
class Round:
    """A contest that was held: the index of its first candidate, its brief, the images that were
    retrieved for it beside the job's context, and the tokens of its prompts.
    """

    first: int
    brief: Brief
    references: tuple[Reference, ...]
    tokens: tuple[TokenCount, ...]


@dataclass
class Execution:
    """One execution of a job: everything that its record will hold, as far as it has come."""

    job: Job
    ports: Ports
    context: Context = field(default_factory=Context)
    brief: Brief | None = None
    rounds: list[Round] = field(default_factory=list)
    refinements: list[Refinement] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)

    @property
    def scores(self) -> list[Score | None]:
        """The candidates' scores, in order."""
        return [candidate.score for candidate in self.candidates]

    @property
    def last_round(self) -> list[Score | None]:
        """The scores of the contest that was held last."""
        return self.scores[self.rounds[-1].first :] if self.rounds else []

    def retrieve(self) -> None:
        """Find the job's context, once its words and images are found harmless. Raises Blocked,
        JobError and Unavailable.
        """
        for text in filter(None, (self.job.keywords, self.job.style)):
            self.ports.guard.check_text(text, "keywords")
        with stage("retrieve"):
            self.ports.guard.check_inputs(self.job)
            self.context = _retrieve(self.job, self.ports)

    def write(self) -> Brief:
        """The first brief, written from the context. Raises Blocked where it must not be rendered,
        JobError and Unavailable.
        """
        with stage("write"):
            self.brief = brief = self.ports.writer.write(self.job, self.context)
        _guard(brief, self.job, self.ports)
        return brief

    def hold(self, brief: Brief, references: Sequence[Reference] = ()) -> None:
        """Add a contest with a prompt, and with images beside those of earlier rounds. Its images
        are judged by the first brief, so that the rounds compare.
        """
        best, first = contest.winner(self.scores), len(self.candidates)
        # each image of an earlier round takes some MB
        self.candidates = [
            each if each.index == best else replace(each, image=None) for each in self.candidates
        ]
        earlier = [each for held in self.rounds for each in held.references]
        context = self.context.joined((*earlier, *references))
        self.candidates += hold_contest(
            self.job, context, brief, self.ports, first, judged=self.brief
        )
        self.rounds.append(Round(first, brief, tuple(references), self.meter.tokens))

    def refine(self) -> bool:
        """Hold a further round: with another prompt where no candidate of the last one passes some
        check, else with images of what is missing. False where neither adds a candidate; its
        faults are not the job's, which has the candidates of the rounds before.
        """
        try:
            refinement = self._rewritten() or self._steered()
            if refinement is None:
                return False
            self.refinements.append(refinement)
            if not (refinement.brief or refinement.references):
                return False
            self.hold(refinement.brief or self.rounds[-1].brief, refinement.references)
        except JobError as error:
            notice(f"a further round failed: {error.detail}")
            return False
        return True

    def _rewritten(self) -> Refinement | None:
        """A round with a prompt that the writer makes of the failed checks; None where there are
        none, or it has no other prompt that may be rendered.
        """
        job, ports, brief = self.job, self.ports, self.rounds[-1].brief
        failed = contest.failed_checks(brief.checks, self.last_round)
        if not failed:
            return None
        missing = tuple(check.question for check in failed)
        try:
            with stage("write"):
                written = ports.writer.write(job, self.context, Rejected(brief.prompt, missing))
            if written.prompt == brief.prompt:
                return None
            other = written.model_copy(update={"text": brief.text, "checks": brief.checks})
            _guard(other, job, ports)
        except (Blocked, JobError) as error:
            notice(f"the prompt was not rewritten: {error.detail}")
            return None
        return Refinement(missing=missing, brief=other, first=len(self.candidates))

    def _steered(self) -> Refinement | None:
        """A round with images of what the best candidate does not show; None where no candidate is
        valid, or no image steers the job.

        Shalev-Arkushin et al., "ImageRAG" (2025, arXiv:2502.09411): there a vision-language model
        names the missing concepts, here the judge does.
        """
        job, best = self.job, contest.winner(self.scores)
        if best is None or not (job.collection and job.references and job.reference_scale):
            return None
        missing = self._missing_in(self.candidates[best])
        earlier = [each for held in self.rounds for each in held.references]
        known = {each.id for each in (*self.context.references, *earlier)}
        limits = {"passages": 0, "references": job.references + len(known)}
        with stage("retrieve"):
            answers = [
                _retrieve(job.model_copy(update={"keywords": text, **limits}), self.ports)
                for text in missing
            ]
        # the best image of every phrase comes before the second best of any
        found = {
            each.id: each
            for each in chain(*zip_longest(*(answer.references for answer in answers)))
            if each
        }
        new = [each for key, each in found.items() if key not in known]
        return Refinement(
            missing=missing, references=tuple(new[: job.references]), first=len(self.candidates)
        )

    def _missing_in(self, candidate: Candidate) -> tuple[str, ...]:
        """Phrases of the judged text that a candidate does not show, or, where it passes by its
        text, the checks that it fails.
        """
        job, ports, brief, image = self.job, self.ports, self.brief, candidate.image
        assert brief is not None
        assert image is not None
        request = judge_request(job, self.context, brief, ports)

        def passes(text: str) -> bool:
            return contest.passes(job, _judge(ports, request.saying(text), [image])[0])

        text = request.words(ports.judge_against)
        if passes(text):
            failed = contest.failed_checks(brief.checks, [candidate.score])
            return tuple(check.question for check in failed)
        return contest.missing_phrases(text, passes)

    def status(self) -> tuple[Status, str]:
        """The status of a contest that is decided, and the reason where it is not ACCEPTED."""
        scores = [score for score in self.scores if score]
        best = contest.winner(scores)
        if best is None and (refused := [score for score in scores if score.blocked]):
            return Status.BLOCKED, refused[0].reason
        if best is None:
            return Status.FAILED, f"no candidate is a valid image: {scores[0].reason}"
        score, threshold = scores[best], self.job.threshold
        if contest.passes(self.job, score):
            return Status.ACCEPTED, ""
        reason = f"best score {score.calibrated:.3f} < threshold {threshold:.3f}"
        if (chance := contest.given_up(self.job, self.last_round)) is not None:
            reason += (
                f"; given up after {len(self.last_round)} of {self.job.candidates} candidates: "
                f"chance {chance:.3g} that the next one passes"
            )
        return Status.BELOW_GATE, reason

    def commit(self, status: Status, reason: str) -> Outcome:
        """Commit the outcome, with the winner's image where its status keeps one: a job may be
        blocked in its second round.
        """
        job, ports, meter = self.job, self.ports, self.meter
        winner = contest.winner(self.scores) if status in KEPT else None
        tokens = [held.tokens for held in self.rounds if winner is None or held.first <= winner]
        outcome = Outcome(
            run=ports.run,
            job_id=job.id,
            status=status,
            reason=mask(reason),
            job=job,
            row=job.row,
            keywords=job.keywords,
            context=self.context,
            brief=self.brief,
            refinements=tuple(self.refinements),
            candidates=tuple(
                CandidateRecord(index=c.index, seed=c.seed, score=c.score, previews=c.previews)
                for c in self.candidates
            ),
            winner=winner,
            given_up=contest.given_up(job, self.last_round)
            if status is Status.BELOW_GATE
            else None,
            models=ports.models[job.model],
            renderer=meter.renderer,
            tokens=tokens[-1] if tokens else meter.tokens,
            seconds=meter.wall,
            device_seconds=meter.device,
            attempt=uuid.uuid4().hex,
            created_at=timestamp(),
            version=version(),
            notices=tuple(meter.notices),
        )
        return ports.records.commit(
            outcome, None if winner is None else self.candidates[winner].image
        )


def _guard(brief: Brief, job: Job, ports: Ports) -> None:
    """Raise Blocked for a brief whose texts must not be rendered."""
    words = words_of(brief.prompt, job, ports)
    for text in dict.fromkeys((brief.prompt, words, brief.text)):
        ports.guard.check_text(text, "prompt")


def hold_contest(
    job: Job,
    context: Context,
    brief: Brief,
    ports: Ports,
    begin: int = 0,
    judged: Brief | None = None,
) -> list[Candidate]:
    """Render and judge candidates, wave by wave, until the contest is decided; they are numbered
    from `begin`, and compared with `judged` where that is another brief.
    """
    scoring, candidates = scoring_of(job, context, judged or brief, ports), list[Candidate]()
    previewing = scoring_of(job, context, judged or brief, ports, previews=True)
    request: RenderRequest | None = None
    while count := contest.next_wave(job, [c.score for c in candidates]):
        check()
        first = begin + len(candidates)
        seeds = tuple(job.candidate_seed(first + offset) for offset in range(count))
        race = Race(contest.rungs(job), previewing, count)
        with stage("render"):
            request = request or render_request(job, context, brief, ports.inputs)
            images = ports.renderer.render(request.model_copy(update={"seeds": seeds}), race)
        finished = [image for image in images if image is not None]
        earlier = [candidate.image for candidate in candidates]
        scores = iter(scored(finished, earlier, scoring, ports))
        for offset, (seed, image) in enumerate(zip(seeds, images, strict=True)):
            score = None if image is None else next(scores)
            previews = tuple(race.previews[offset])
            candidates.append(Candidate(first + offset, seed, image, score, previews))
    return candidates


class Race:
    """The Pruner of one wave: the judge scores the previews, the contest picks the survivors."""

    def __init__(self, rungs: Sequence[Rung], scoring: Scoring, count: int) -> None:
        self.points = [rung.at for rung in rungs]
        self.previews: list[list[Score]] = [[] for _ in range(count)]
        self._rungs, self._judge = iter(rungs), scoring
        self._left = list(range(count))

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """The indices of the best previews, as the next rung says."""
        scores = self._judge(previews)
        for index, score in zip(self._left, scores, strict=True):
            self.previews[index].append(score)
        kept = contest.survivors(next(self._rungs), scores)
        self._left = [self._left[place] for place in kept]
        return kept


def render_request(
    job: Job, context: Context, brief: Brief, inputs: Inputs, seeds: tuple[int, ...] = ()
) -> RenderRequest:
    """The request for candidates with these seeds: the brief's prompt, the retrieved images and
    those of the row, at the job's settings. Raises JobError.
    """

    def loaded(image: InputImage | None) -> LoadedImage | None:
        return inputs.load(image, job.width, job.height) if image else None

    control = None
    if job.control and (image := loaded(job.control_image)):
        control = Control(
            job.control, image, job.control_scale, job.control_from, job.control_until
        )
    masked = loaded(job.mask)
    if masked and luminance(masked.pixels).max() < MASKED:
        raise JobError("the mask is black everywhere: nothing would be painted")
    named = _named(job, inputs)
    embeddings = (
        *named,
        *(reference.embedding for reference in context.references if reference.scale),
    )
    return RenderRequest(
        prompt=brief.prompt,
        negative=brief.negative,
        width=job.width,
        height=job.height,
        steps=job.steps,
        guidance=job.guidance,
        seeds=seeds,
        references=embeddings,
        named=len(named),
        reference_scale=job.reference_scale if embeddings else 0.0,
        loras=job.loras,
        model=job.model,
        image=loaded(job.image),
        strength=job.strength if job.image else 1.0,
        mask=masked,
        embeddings=job.embeddings,
        control=control,
    )


def scoring_of(
    job: Job, context: Context, brief: Brief, ports: Ports, *, previews: bool = False
) -> Scoring:
    """The judge, bound to a job, for its finished images or for previews. Raises JobError."""
    request = judge_request(job, context, brief, ports)
    return partial(_judge, ports, replace(request, previews=previews))


def judge_request(job: Job, context: Context, brief: Brief, ports: Ports) -> JudgeRequest:
    """The texts, checks and images that a job's candidates are compared with. Raises JobError."""

    def words(text: str) -> str:
        try:
            return words_of(text, job, ports)
        except JobError:
            return text  # no renderer reads it: a time in brackets is no weight

    prompt, text, keywords = (
        words_of(brief.prompt, job, ports),
        words(brief.text),
        words(job.keywords),
    )
    retrieved = tuple(each.embedding for each in context.references if each.embedding)
    references = (*_named(job, ports.inputs), *retrieved)
    checks = tuple(
        check.model_copy(update={"question": words(check.question)}) for check in brief.checks
    )
    return JudgeRequest(prompt, text, keywords, checks, references)


def _named(job: Job, inputs: Inputs) -> tuple[Embedding, ...]:
    """Embeddings of the images that a row names to steer its render."""
    return tuple(inputs.embed(image) for image in job.reference_images if job.reference_scale)


def words_of(text: str, job: Job, ports: Ports) -> str:
    """The text without the weights that the job's renderer reads in a prompt. Raises JobError."""
    return plain(sections_of(text)) if job.model in ports.weighted else text


def _judge(ports: Ports, request: JudgeRequest, images: Sequence[ImageArray]) -> Sequence[Score]:
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


def _retrieve(job: Job, ports: Ports) -> Context:
    try:
        found = ports.retriever.retrieve(job)
    except Unavailable as error:
        if job.needs_context:
            raise
        return Context(unavailable=str(error))
    return ports.guard.screened(found)
