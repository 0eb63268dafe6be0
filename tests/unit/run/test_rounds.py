"""Further rounds: another prompt, and images of what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pipeline.errors import JobError
from pipeline.job import (
    Brief,
    Check,
    Context,
    ImageArray,
    Job,
    JudgeRequest,
    Prior,
    Rejected,
    RenderRequest,
    Score,
    TokenCount,
)
from pipeline.ports import Pruner
from pipeline.record import Status
from pipeline.run import run_job
from pipeline.telemetry import read_tokens
from tests.harness.parts import CHECKS, INVALID, JOB, Parts, answered, image, scores


class Rounds(Parts):
    """Finds an image named by what it is asked; all images pass texts without "blue"."""

    asked: list[str]

    def retrieve(self, job: Job) -> Context:
        self.asked = [*getattr(self, "asked", []), job.keywords]
        return Context(references=(image("first"), image(job.keywords)))

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        return Brief(text="text", prompt="a circle, on blue, at the top")

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        if "blue" not in request.prompt:
            return scores(*[0.9] * len(images))
        return super().score(images, request)


TWO_ROUNDS = JOB.model_copy(
    update={
        "rounds": 2,
        "candidates": 2,
        "collection": "c",
        "references": 1,
        "reference_scale": 0.5,
    }
)


def test_a_second_round_is_steered_by_images_of_what_lacks() -> None:
    parts = Rounds(scores(0.2, 0.4, 0.3, 0.9))
    outcome = run_job(TWO_ROUNDS, parts.ports())
    assert (outcome.status, outcome.winner) == (Status.ACCEPTED, 3)
    assert [c.index for c in outcome.candidates] == [0, 1, 2, 3]
    assert [c.seed for c in outcome.candidates] == [TWO_ROUNDS.candidate_seed(i) for i in range(4)]
    (refinement,) = outcome.refinements
    assert (refinement.missing, refinement.first) == (("on blue",), 2)
    assert [each.id for each in refinement.references] == ["on blue"]
    assert [len(request.references) for request in parts.requests] == [2, 3]
    names = [each.id for each in outcome.winners_context.references]
    assert names == ["first", "red circle", "on blue"]
    assert parts.asked == ["red circle", "on blue"]


def test_the_first_round_may_still_win() -> None:
    outcome = run_job(TWO_ROUNDS, Rounds(scores(0.2, 0.4, 0.3, 0.1)).ports())
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 1)
    assert len(outcome.refinements) == 1
    assert outcome.winners_context == outcome.context


@pytest.mark.parametrize(
    ("first", "changes"),
    [
        (0.9, {}),
        (0.4, {"rounds": 1}),
        (0.4, {"references": 0}),
        (0.4, {"reference_scale": 0.0}),
        (0.4, {"collection": ""}),
    ],
)
def test_there_is_one_round_where_one_passes_or_nothing_steers(first, changes) -> None:
    parts = Rounds(scores(first, 0.1, 0.9, 0.9))
    outcome = run_job(TWO_ROUNDS.model_copy(update=changes), parts.ports())
    assert (len(outcome.candidates), outcome.refinements, len(parts.requests)) == (2, (), 1)


def test_nothing_new_is_found_and_nothing_more_rendered() -> None:
    parts = Parts(scores(0.2, 0.4), context=Context(references=(image("first"),)))
    outcome = run_job(TWO_ROUNDS, parts.ports())
    (refinement,) = outcome.refinements
    assert (refinement.references, len(outcome.candidates)) == ((), 2)
    assert outcome.status == Status.BELOW_GATE


def test_of_invalid_images_nothing_is_asked() -> None:
    outcome = run_job(TWO_ROUNDS, Rounds([INVALID, INVALID]).ports())
    assert (outcome.status, outcome.refinements) == (Status.FAILED, ())


REWRITTEN = JOB.model_copy(update={"rounds": 3, "candidates": 2})


@dataclass
class Rewriting(Parts):
    """Writes another prompt whenever one was rejected."""

    rejected: list[Rejected] = field(default_factory=list)

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        if rejected is None:
            return Brief(text="text", prompt="prompt 0", checks=CHECKS)
        self.rejected.append(rejected)
        return Brief(text="other", prompt=f"prompt {len(self.rejected)}")


def test_a_check_that_no_candidate_passes_rewrites_the_prompt() -> None:
    failing = [answered(0.3, 0.2, 0.9), answered(0.4, 0.4, 0.3)]
    better = [answered(0.4, 0.9, 0.1), answered(0.3, 0.9, 0.2)]
    parts = Rewriting([*failing, *better, answered(0.9, 0.9, 0.9), answered(0.8, 0.9, 0.9)])
    outcome = run_job(REWRITTEN, parts.ports())
    assert (outcome.status, outcome.winner) == (Status.ACCEPTED, 4)
    assert parts.rejected == [
        Rejected("prompt 0", ("Is it red?",)),
        Rejected("prompt 1", ("Is it a circle?",)),
    ]
    assert [request.prompt for request in parts.requests] == ["prompt 0", "prompt 1", "prompt 2"]
    assert [(each.missing, each.first) for each in outcome.refinements] == [
        (("Is it red?",), 2),
        (("Is it a circle?",), 4),
    ]
    assert outcome.brief is not None
    assert outcome.brief.prompt == "prompt 0"
    brief = Brief(text="text", prompt="prompt 2", checks=CHECKS)
    assert outcome.winners_brief == brief
    assert len({candidate.seed for candidate in outcome.candidates}) == 6


def test_the_prompt_stays_where_some_candidate_passes_each_check() -> None:
    parts = Rewriting([answered(0.3, 0.2, 0.9), answered(0.4, 0.6, 0.3)] * 3)
    outcome = run_job(REWRITTEN, parts.ports())
    assert (outcome.status, outcome.refinements) == (Status.BELOW_GATE, ())
    assert len(outcome.candidates) == 2


def test_there_are_as_many_rounds_as_the_row_allows() -> None:
    parts = Rewriting([answered(0.3, 0.2, 0.2)] * 6)
    outcome = run_job(REWRITTEN, parts.ports())
    assert (outcome.status, len(outcome.candidates)) == (Status.BELOW_GATE, 6)
    assert len(outcome.refinements) == 2


@pytest.mark.parametrize("written", ["prompt 0", JobError("no prompt")])
def test_a_writer_that_has_no_other_prompt_ends_the_rounds(written: str | JobError) -> None:
    class Stubborn(Rewriting):
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            if rejected and isinstance(written, JobError):
                raise written
            return Brief(text="text", prompt="prompt 0", checks=CHECKS)

    outcome = run_job(REWRITTEN, Stubborn([answered(0.3, 0.2, 0.2)] * 2).ports())
    assert (outcome.status, outcome.refinements) == (Status.BELOW_GATE, ())
    said = ("the prompt was not rewritten: no prompt",) if written != "prompt 0" else ()
    assert outcome.notices == said


def test_a_rewritten_prompt_is_guarded_too() -> None:
    parts = Rewriting([answered(0.3, 0.2, 0.2)] * 2, blocked="prompt 1")
    outcome = run_job(REWRITTEN, parts.ports())
    assert (outcome.status, outcome.winner, len(parts.requests)) == (Status.BELOW_GATE, 0, 1)
    assert outcome.notices == ("the prompt was not rewritten: prompt 1",)


def test_an_earlier_round_may_win_with_its_own_prompt_and_tokens() -> None:
    class Counting(Rewriting):
        def render(
            self, request: RenderRequest, pruner: Pruner | None = None
        ) -> Sequence[ImageArray | None]:
            number = int(request.prompt.split()[1])
            read_tokens([TokenCount(text="prompt", encoder="e", tokens=number, read=number)])
            return super().render(request, pruner)

    given = [answered(chance, 0.2, 0.2) for chance in (0.3, 0.4, 0.2, 0.45, 0.1, 0.1)]
    parts = Counting(given)
    outcome = run_job(REWRITTEN, parts.ports())
    assert (outcome.winner, len(outcome.candidates)) == (3, 6)
    assert outcome.winners_brief is not None
    assert outcome.winners_brief.prompt == "prompt 1"
    assert [count.tokens for count in outcome.tokens] == [1]
    image = parts.committed[0][1]
    assert image is not None
    assert image.max() == pytest.approx(REWRITTEN.candidate_seed(3) % 97 / 97)


def test_further_rounds_are_judged_by_the_first_brief() -> None:
    class Noting(Rewriting):
        def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
            asked.append((request.prompt, request.checks))
            return super().score(images, request)

    asked = list[tuple[str, tuple[Check, ...]]]()
    run_job(REWRITTEN, Noting([answered(0.3, 0.2, 0.2)] * 6).ports())
    assert asked == [("prompt 0", CHECKS)] * 3


def test_a_contest_is_given_up_by_the_scores_of_its_own_round() -> None:
    job = TWO_ROUNDS.model_copy(
        update={
            "rounds": 3,
            "candidates": 8,
            "contest": "stop",
            "wave": 2,
            "prior": Prior(mean=-8.0, between=1.0, within=0.1),
        }
    )

    class Barren(Rewriting):
        def retrieve(self, job: Job) -> Context:
            return Context(references=(image("first"),))

        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            if self.rejected:
                return Brief(text="text", prompt="prompt 1", checks=CHECKS)
            return super().write(job, context, rejected)

    outcome = run_job(job, Barren([answered(0.001, 0.2, 0.2)] * 4).ports())
    assert [bool(each.brief) for each in outcome.refinements] == [True, False]
    assert outcome.given_up is not None
    assert "given up after 2 of 8 candidates" in outcome.reason


def test_an_image_that_passes_by_its_text_lacks_the_checks_that_it_fails() -> None:
    class Asking(Rounds):
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            return Brief(text="text", prompt="a circle, on blue", checks=CHECKS)

        def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
            chance = 0.3 if request.checks else 0.9
            return [answered(chance, 0.9, 0.1)] * len(images)

    parts = Asking(())
    (refinement,) = run_job(TWO_ROUNDS, parts.ports()).refinements
    assert refinement.missing == ("Is it a circle?",)
    assert parts.asked == ["red circle", "Is it a circle?"]


def test_a_second_round_that_fails_leaves_the_first_ones_winner() -> None:
    class Failing(Rounds):
        def render(
            self, request: RenderRequest, pruner: Pruner | None = None
        ) -> Sequence[ImageArray | None]:
            if self.requests:
                raise JobError("no such adapter")
            return super().render(request, pruner)

    parts = Failing(scores(0.2, 0.4))
    outcome = run_job(TWO_ROUNDS, parts.ports())
    assert (outcome.status, outcome.winner, len(outcome.candidates)) == (Status.BELOW_GATE, 1, 2)
    assert outcome.notices == ("a further round failed: no such adapter",)
    assert parts.committed[0][1] is not None
