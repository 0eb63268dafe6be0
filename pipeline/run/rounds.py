"""The rounds of a job after its first one."""

from itertools import chain, zip_longest

from pipeline.errors import Blocked, JobError
from pipeline.job import Candidate, Rejected, first_step
from pipeline.judging import contest
from pipeline.record import Refinement
from pipeline.run.execution import Execution, guard_brief, retrieve
from pipeline.run.requests import judge_request
from pipeline.run.scoring import judge
from pipeline.telemetry import notice, stage

_NOT_EDITED = "the best candidate was not edited"


def refine(execution: Execution) -> bool:
    """Hold a further round: with another prompt where no candidate of the last one passes some
    check, else of edits where the best one lacks little, else with images of what is missing; the
    next of these where one is not to be had. False where none adds a candidate; its faults are not
    the job's, which has the candidates of the rounds before.
    """
    try:
        refinement = _rewritten(execution)
        if refinement is None and _edited(execution):
            return True
        refinement = refinement or _steered(execution)
        if refinement is None:
            return False
        execution.refinements.append(refinement)
        if not (refinement.brief or refinement.references):
            return False
        execution.hold(refinement.brief or execution.rounds[-1].brief, refinement.references)
    except JobError as error:
        notice(f"a further round failed: {error.detail}")
        return False
    return True


def _rewritten(execution: Execution) -> Refinement | None:
    """A round with a prompt that the writer makes of the failed checks; None where there are
    none, or it has no other prompt that may be rendered.
    """
    job, ports, brief = execution.job, execution.ports, execution.rounds[-1].brief
    failed = contest.failed_checks(brief.checks, execution.last_round)
    if not failed:
        return None
    missing = tuple(check.question for check in failed)
    try:
        with stage("write"):
            written = ports.writer.write(job, execution.context, Rejected(brief.prompt, missing))
            if written.prompt == brief.prompt:
                return None
            other = written.model_copy(update={"text": brief.text, "checks": brief.checks})
            guard_brief(other, job, ports)
    except (Blocked, JobError) as error:
        notice(f"the prompt was not rewritten: {error.detail}")
        return None
    return Refinement(
        kind="rewritten", missing=missing, brief=other, first=len(execution.candidates)
    )


def _edited(execution: Execution) -> bool:
    """Hold a round that begins from the best candidate, where it lacks only what an edit may mend.
    False where it held none; the notices say why where the row or its renderer does not allow it.

    Meng et al., "SDEdit" (ICLR 2022, arXiv:2108.01073).
    """
    job, best = execution.job, contest.winner(execution.scores)
    if best is None or not job.edit_strength:
        return False
    candidate = execution.candidates[best]
    held = next(each for each in reversed(execution.rounds) if each.first <= best)
    assert candidate.score is not None
    missing = contest.local_faults(held.brief.checks, candidate.score)
    if not missing:
        return False
    reason = ""
    steps = job.draft_steps if job.contest == "draft" else job.steps
    if job.image:
        reason = "the row begins from an image of its own"
    elif first_step(steps, job.edit_strength) == steps:
        reason = f"{job.edit_strength} of {steps} steps is no step"
    if reason:
        notice(f"{_NOT_EDITED}: {reason}")
        return False
    assert candidate.image is not None
    refinement = Refinement(
        kind="edited",
        missing=tuple(check.question for check in missing),
        brief=held.brief,
        image=execution.ports.inputs.keep(candidate.image, f"candidate {best}"),
        first=len(execution.candidates),
    )
    # ahead of the round, which a guard may block: the record names each image that is kept
    execution.refinements.append(refinement)
    try:
        execution.hold(held.brief, image=refinement.image)
    except JobError as error:
        execution.refinements[-1] = refinement.model_copy(update={"brief": None})
        notice(f"{_NOT_EDITED}: {error.detail}")
        return False
    return True


def _steered(execution: Execution) -> Refinement | None:
    """A round with images of what the best candidate does not show; None where no candidate is
    valid, or no image steers the job.

    Shalev-Arkushin et al., "ImageRAG" (2025, arXiv:2502.09411): there a vision-language model
    names the missing concepts, here the judge does.
    """
    job, best = execution.job, contest.winner(execution.scores)
    if best is None or not (job.collection and job.references and job.reference_scale):
        return None
    missing = _missing_in(execution, execution.candidates[best])
    earlier = [each for held in execution.rounds for each in held.references]
    known = {each.id for each in (*execution.context.references, *earlier)}
    limits = {"passages": 0, "references": job.references + len(known)}
    with stage("retrieve"):
        answers = [
            retrieve(job.model_copy(update={"keywords": text, **limits}), execution.ports)
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
        kind="steered",
        missing=missing,
        references=tuple(new[: job.references]),
        first=len(execution.candidates),
    )


def _missing_in(execution: Execution, candidate: Candidate) -> tuple[str, ...]:
    """Phrases of the judged text that a candidate does not show, or, where it passes by its
    text, the checks that it fails.
    """
    job, ports, brief, image = execution.job, execution.ports, execution.brief, candidate.image
    assert brief is not None
    assert image is not None
    request = judge_request(job, execution.context, brief, ports)

    def passes(text: str) -> bool:
        return contest.passes(job, judge(ports, request.saying(text), [image])[0])

    text = request.words(ports.judge_against)
    if passes(text):
        failed = contest.failed_checks(brief.checks, [candidate.score])
        return tuple(check.question for check in failed)
    return contest.missing_phrases(text, passes)
