"""One execution of a job: its stages, and what its record will hold."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.errors import Blocked, JobError, Rewritable, Unavailable
from pipeline.job import (
    Brief,
    Candidate,
    Context,
    InputImage,
    Job,
    Reference,
    Rejected,
    Score,
    TokenCount,
)
from pipeline.judging import contest
from pipeline.masking import mask
from pipeline.ports import Ports
from pipeline.record import (
    KEPT,
    CandidateRecord,
    Outcome,
    Refinement,
    RefusedBrief,
    Status,
    timestamp,
    version,
)
from pipeline.run.requests import words_of
from pipeline.run.waves import hold_contest
from pipeline.telemetry import Meter, notice, stage


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
    refused: RefusedBrief | None = None
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

    @stage("retrieve")
    def retrieve(self) -> None:
        """Find the job's context, once its words and images are found harmless. Raises Blocked,
        JobError and Unavailable.
        """
        for text in filter(None, (self.job.keywords, self.job.style)):
            self.ports.guard.check_text(text, "keywords")
        self.ports.guard.check_inputs(self.job)
        self.context = retrieve(self.job, self.ports)

    @stage("write")
    def write(self) -> Brief:
        """The first brief, written from the context, and once more where a guard asks for that.
        Raises Blocked where it must not be rendered, JobError and Unavailable.
        """
        writer, job = self.ports.writer, self.job
        self.brief = brief = writer.write(job, self.context)
        try:
            guard_brief(brief, job, self.ports)
        except Rewritable as refusal:
            self.refused = RefusedBrief(brief=brief, reason=mask(refusal.detail))
            rejected = Rejected(brief.prompt, rule=refusal.rule)
            try:
                self.brief = brief = writer.write(job, self.context, rejected)
            except JobError as error:
                why = f"{refusal.detail}; the prompt was not rewritten: {error.detail}"
                raise Blocked(why) from error
            guard_brief(brief, job, self.ports)
            notice(f"the prompt was rewritten: {refusal.detail}")
        return brief

    def hold(
        self,
        brief: Brief,
        references: Sequence[Reference] = (),
        image: InputImage | None = None,
    ) -> None:
        """Add a contest with a prompt, with `references` beside those of earlier rounds, and where
        it begins from an `image`. Its images are judged by the first brief, so that the rounds
        compare.
        """
        job = self.job.editing(image) if image else self.job
        best, first = contest.winner(self.scores), len(self.candidates)
        # each image of an earlier round takes some MB
        self.candidates = [
            each if each.index == best else replace(each, image=None) for each in self.candidates
        ]
        earlier = [each for held in self.rounds for each in held.references]
        context = self.context.joined((*earlier, *references))
        self.candidates += hold_contest(job, context, brief, self.ports, first, judged=self.brief)
        self.rounds.append(Round(first, brief, tuple(references), self.meter.tokens))

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
            refused=self.refused,
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


def guard_brief(brief: Brief, job: Job, ports: Ports) -> None:
    """Raise Blocked for a brief whose texts must not be rendered, Rewritable where only guards
    which rewrite refuse them.
    """
    words, refusals = words_of(brief.prompt, job, ports), list[Rewritable]()
    for text in dict.fromkeys((brief.prompt, words, brief.text)):
        try:
            ports.guard.check_text(text, "prompt")
        except Rewritable as refusal:
            refusals.append(refusal)
    if refusals:
        rules = dict.fromkeys(each.rule for each in refusals)
        raise Rewritable(refusals[0].detail, ", ".join(rules))


def retrieve(job: Job, ports: Ports) -> Context:
    """The screened context of a job; empty where the knowledge base does not answer and the job
    does without. Raises Blocked, JobError and Unavailable.
    """
    try:
        found = ports.retriever.retrieve(job)
    except Unavailable as error:
        if job.needs_context:
            raise
        return Context(unavailable=str(error))
    return ports.guard.screened(found)
