"""run_job with ports that do the least their docstrings allow: the statuses are under test."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from pipeline.errors import Blocked, JobError, Unavailable
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
    Prior,
    Reference,
    Rejected,
    RenderRequest,
    Rung,
    Score,
    ScorePart,
    TokenCount,
)
from pipeline.ports import Ports, Pruner
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.telemetry import notice, read_tokens, rendered_by
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

    def load(self, image: InputImage, width: int, height: int) -> LoadedImage:
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


def test_the_images_of_a_row_reach_the_renderer_in_its_size() -> None:
    image = InputImage(path="a.png", sha256="a" * 64, width=5, height=7)
    own = {"image": image, "strength": 0.5, "mask": image, "reference_images": (image,)}
    parts = Parts(scores(0.2, 0.9, 0.95, 0.1))
    run_job(JOB.model_copy(update=own | {"reference_scale": 0.4}), parts.ports())
    (asked,) = parts.requests
    assert asked.image is not None
    assert asked.image.pixels.shape == (JOB.height, JOB.width, 3)
    assert asked.mask == asked.image
    assert (asked.strength, asked.references, asked.reference_scale) == (0.5, ((5.0,),), 0.4)


def test_a_black_mask_fails_its_job() -> None:
    image = InputImage(path="a.png", sha256="a" * 64, width=5, height=7)
    parts = Parts(())
    parts.load = lambda image, width, height: LoadedImage(  # type: ignore[method-assign]
        image.sha256, np.full((height, width, 3), 0.3, np.float32)
    )
    outcome = run_job(JOB.model_copy(update={"image": image, "mask": image}), parts.ports())
    assert (outcome.status, "black everywhere" in outcome.reason) == (Status.FAILED, True)
    assert not parts.requests


def test_the_best_candidate_wins_with_its_own_seed_and_image() -> None:
    parts = Parts(scores(0.2, 0.9, 0.95, 0.1))
    outcome = run_job(JOB, parts.ports())
    assert (outcome.status, outcome.winner, outcome.score) == (Status.ACCEPTED, 2, 0.95)
    assert [c.seed for c in outcome.candidates] == [SEED_SPACE - 2, SEED_SPACE - 1, 0, 1]
    assert outcome.seed == 0
    assert outcome.renderer == "parts"
    image = parts.committed[0][1]
    assert image is not None
    assert image.max() == 0.0


def test_what_was_cut_on_the_way_is_in_the_record_once() -> None:
    class Cutting(Parts):
        def render(
            self, request: RenderRequest, pruner: Pruner | None = None
        ) -> Sequence[ImageArray | None]:
            notice("the text encoder read 75 of 231 tokens of the prompt")
            return super().render(request, pruner)

    outcome = run_job(
        JOB.model_copy(update={"contest": "first_above"}),
        Cutting(scores(0.2, 0.3, 0.9, 1)).ports(),
    )
    assert outcome.notices == ("the text encoder read 75 of 231 tokens of the prompt",)


def test_below_the_gate_the_best_is_kept_and_marked() -> None:
    parts = Parts(scores(0.2, 0.4, 0.3, 0.1))
    outcome = run_job(JOB, parts.ports())
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 1)
    assert "0.400 < threshold 0.500" in outcome.reason
    assert parts.committed[0][1] is not None


def test_first_above_stops_at_the_wave_that_passes() -> None:
    parts = Parts(scores(0.2, 0.3, 0.9, 0.1))
    outcome = run_job(JOB.model_copy(update={"contest": "first_above", "wave": 2}), parts.ports())
    assert [len(request.seeds) for request in parts.requests] == [2, 2]
    assert outcome.winner == 2
    parts = Parts(scores(0.6, 0.3, 0.9, 0.1))
    run_job(JOB.model_copy(update={"contest": "first_above", "wave": 2}), parts.ports())
    assert [len(request.seeds) for request in parts.requests] == [2]


def test_a_hopeless_contest_is_given_up_and_the_record_tells_at_what_chance() -> None:
    parts = Parts(scores(0.2, 0.1, 0.9, 0.1))
    prior = Prior(mean=-1.0, between=4.0, within=0.5)
    stop = {"contest": "stop", "wave": 1, "prior": prior, "stop_below": 0.03}
    outcome = run_job(JOB.model_copy(update=stop), parts.ports())
    assert len(parts.requests) == 2
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 0)
    assert outcome.given_up == pytest.approx(0.0209, abs=1e-4)
    assert outcome.reason == (
        "best score 0.200 < threshold 0.500; given up after 2 of 4 candidates: "
        f"chance {outcome.given_up:.3g} that the next one passes"
    )
    parts = Parts(scores(0.3, 0.6))
    outcome = run_job(JOB.model_copy(update=stop), parts.ports())
    assert (outcome.status, outcome.given_up, len(parts.requests)) == (Status.ACCEPTED, None, 2)
    parts = Parts(scores(0.4, 0.4, 0.4, 0.4))
    outcome = run_job(JOB.model_copy(update=stop), parts.ports())
    assert (outcome.status, outcome.given_up, len(parts.requests)) == (Status.BELOW_GATE, None, 4)


class Racers(Parts):
    """A renderer that shows previews; an image's shade is its score, from first to last."""

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> list[ImageArray | None]:
        self.requests.append(request)
        shades = {seed: self.scores[(seed - JOB.seed) % SEED_SPACE].raw for seed in request.seeds}
        left = list(request.seeds)
        for _ in pruner.points if pruner else ():
            assert pruner
            left = [left[i] for i in pruner.keep([shaded(shades[seed]) for seed in left])]
        return [shaded(shades[seed]) if seed in left else None for seed in request.seeds]

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        return scores(*(float(image.mean()) for image in images))


def shaded(shade: float) -> ImageArray:
    return np.full((16, 16, 3), shade, np.float32)


HALVES = (Rung(at=0.25, keep=0.5), Rung(at=0.5, keep=0.5))


def test_a_race_drops_the_worse_half_at_each_checkpoint_and_tells_it() -> None:
    parts = Racers(scores(0.25, 0.75, 0.5, 0.125))
    race = JOB.model_copy(update={"contest": "race", "rungs": HALVES})
    outcome = run_job(race, parts.ports())
    assert (outcome.status, outcome.winner, outcome.score) == (Status.ACCEPTED, 1, 0.75)
    assert [c.score is None for c in outcome.candidates] == [True, False, True, True]
    assert [len(c.previews) for c in outcome.candidates] == [1, 2, 2, 1]
    assert [c.previews[0].raw for c in outcome.candidates] == [0.25, 0.75, 0.5, 0.125]
    assert "judge" in outcome.seconds


def test_a_race_above_goes_in_waves_and_stops_at_the_one_that_passes() -> None:
    for shades, waves, winner in (
        ((0.25, 0.75, 0.9, 0.125), [2], 1),
        ((0.25, 0.3, 0.9, 0.125), [2, 2], 2),
        ((0.25, 0.3, 0.2, 0.4), [2, 2], 3),
    ):
        parts = Racers(scores(*shades))
        changes = {"contest": "race_above", "wave": 2, "rungs": HALVES[:1]}
        outcome = run_job(JOB.model_copy(update=changes), parts.ports())
        assert [len(request.seeds) for request in parts.requests] == waves
        assert outcome.winner == winner


def test_an_invalid_image_never_wins() -> None:
    parts = Parts([INVALID, *scores(0.0), INVALID, INVALID])
    assert run_job(JOB, parts.ports()).winner == 1
    parts = Parts([INVALID] * 4)
    outcome = run_job(JOB, parts.ports())
    assert (outcome.status, outcome.winner) == (Status.FAILED, None)
    assert "blank" in outcome.reason
    assert parts.committed == [(outcome, None)]


def test_blocked_words_are_refused_in_keywords_and_in_the_written_prompt() -> None:
    for word in ("red", "prompt of"):
        parts = Parts(scores(1, 1, 1, 1), blocked=word)
        assert run_job(JOB, parts.ports()).status is Status.BLOCKED
        assert not parts.requests


def test_a_jobs_own_fault_is_its_outcome_and_a_services_is_raised() -> None:
    outcome = run_job(JOB, Parts(scores(), error=JobError("nothing written")).ports())
    assert (outcome.status, outcome.reason) == (Status.FAILED, "nothing written")
    parts = Parts(scores(), error=Unavailable("gone"))
    with pytest.raises(Unavailable):
        run_job(JOB, parts.ports())
    assert not parts.committed


class Listening(Parts):
    """Keeps what the judge is asked."""

    asked: JudgeRequest

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        self.asked = request
        return super().score(images, request)


def test_a_judge_is_given_the_texts_and_the_checks() -> None:
    check = Check(question="Is the circle red?", kind="attribute")

    class Checking(Listening):
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            return super().write(job, context).model_copy(update={"checks": (check,)})

    parts = Checking(scores(1, 1, 1, 1))
    outcome = run_job(JOB, parts.ports())
    assert parts.asked == JudgeRequest("prompt of red circle", "text", "red circle", (check,))
    assert outcome.brief
    assert outcome.brief.checks == (check,)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_a_judge_is_given_the_named_and_all_retrieved_images(scale: float) -> None:
    named = InputImage(path="a.png", sha256="a" * 64, width=5, height=7)
    found = image("found").model_copy(update={"scale": 0.0})
    parts = Listening(scores(1, 1, 1, 1), context=Context(references=(found,)))
    images = {"reference_images": (named,), "reference_scale": scale}
    run_job(JOB.model_copy(update=images), parts.ports())
    assert parts.asked.references == (((5.0,), (1.0,)) if scale else ((1.0,),))


def test_a_text_that_no_renderer_reads_may_hold_any_brackets() -> None:
    class Timed(Listening):
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            return Brief(text="open (from 8:30)", prompt="a (red:1.3) circle")

    parts = Timed(scores(1, 1, 1, 1))
    run_job(JOB, replace(parts.ports(), weighted=[""]))
    assert (parts.asked.prompt, parts.asked.text) == ("a red circle", "open (from 8:30)")


def test_a_record_tells_how_many_tokens_the_text_encoders_read() -> None:
    read = TokenCount(text="prompt", encoder="text encoder", tokens=300, read=300, chunks=4)

    class Counting(Parts):
        def render(
            self, request: RenderRequest, pruner: Pruner | None = None
        ) -> Sequence[ImageArray | None]:
            read_tokens([read])
            return super().render(request, pruner)

    outcome = run_job(JOB, Counting(scores(1, 1, 1, 1)).ports())
    assert outcome.tokens == (read,)
    assert Outcome.model_validate_json(outcome.model_dump_json()).tokens == (read,)


def test_judge_and_guard_read_a_weighted_prompt_as_words_and_the_renderer_reads_it_whole() -> None:
    judged, guarded = list[str](), list[str]()

    class Weighing(Parts):
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            return super().write(job, context).model_copy(update={"prompt": "a (red:1.3) [one]"})

        def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
            judged.append(request.prompt)
            return super().score(images, request)

        def check_text(self, text: str, place: str) -> None:
            guarded.append(text)

    for weighted, words in (([""], "a red one"), (["other"], "a (red:1.3) [one]")):
        parts = Weighing(scores(1, 1, 1, 1))
        run_job(JOB, replace(parts.ports(), weighted=weighted))
        assert parts.requests[0].prompt == "a (red:1.3) [one]"
        assert (judged.pop(), {words, "a (red:1.3) [one]"} <= set(guarded)) == (words, True)
        guarded.clear()


def test_found_images_go_to_the_renderer_at_the_jobs_strength() -> None:
    used, unused = (
        Reference(
            id=str(strength),
            text="",
            score=1,
            image=f"knowledge/images/{0:064x}.png",
            scale=strength,
            embedding=(0.5, 1.5),
        )
        for strength in (0.7, 0.0)
    )
    for found, strength, wanted in ((used, 0.7, ((0.5, 1.5),)), (unused, 0.0, ())):
        parts = Parts(scores(0.9, 0.8, 0.7, 0.6), context=Context(references=(found,)))
        outcome = run_job(JOB.model_copy(update={"reference_scale": strength}), parts.ports())
        assert (parts.requests[0].references, parts.requests[0].reference_scale) == (
            wanted,
            strength,
        )
        assert outcome.context.references == (found,)


def test_a_job_goes_on_without_the_knowledge_base_only_where_it_may() -> None:
    away = Unavailable("Qdrant did not answer")
    with pytest.raises(Unavailable):
        run_job(JOB, Parts(scores(1), context=away).ports())
    willing = JOB.model_copy(update={"needs_context": False})
    outcome = run_job(willing, Parts(scores(0.9, 0.8, 0.7, 0.6), context=away).ports())
    assert outcome.status == Status.ACCEPTED
    assert "Qdrant did not answer" in outcome.context.unavailable


def image(name: str) -> Reference:
    return Reference(
        id=name,
        text="",
        score=1,
        image=f"knowledge/images/{0:064x}.png",
        scale=0.5,
        embedding=(1.0,),
    )


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


CHECKS = (Check(question="Is it red?"), Check(question="Is it a circle?"))
REWRITTEN = JOB.model_copy(update={"rounds": 3, "candidates": 2})


def answered(chance: float, *answers: float) -> Score:
    part = ScorePart(judge="questions", raw=chance, calibrated=chance, answers=answers)
    return Score(raw=chance, calibrated=chance, parts=(part,))


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
