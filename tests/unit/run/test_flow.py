"""A job with one round: the statuses, and what each port is given."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import JobError, Unavailable
from pipeline.job import (
    SEED_SPACE,
    Brief,
    Check,
    Context,
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
    TokenCount,
)
from pipeline.ports import Pruner
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.telemetry import notice, read_tokens
from tests.harness.parts import INVALID, JOB, Parts, image, scores


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


class Drafted(Racers):
    """A renderer whose drafts, of fewer steps than the job's, have other scores than its images."""

    drafts: Sequence[float] = ()

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> list[ImageArray | None]:
        if request.steps == JOB.steps:
            return super().render(request, pruner)
        self.requests.append(request)
        return [shaded(self.drafts[(seed - JOB.seed) % SEED_SPACE]) for seed in request.seeds]


DRAFT = JOB.model_copy(update={"contest": "draft", "draft_steps": 1, "survivors": 2})


def drafted(drafts: Sequence[float], finals: Sequence[float]) -> tuple[Drafted, Outcome]:
    parts = Drafted(scores(*finals))
    parts.drafts = drafts
    return parts, run_job(DRAFT, parts.ports())


def test_the_best_drafts_are_rendered_again_from_their_seeds_and_the_best_image_wins() -> None:
    parts, outcome = drafted((0.5, 0.25, 0.75, 0.125), (0.6, 0.95, 0.55, 0.9))
    assert [(each.steps, each.seeds) for each in parts.requests] == [
        (1, (SEED_SPACE - 2, SEED_SPACE - 1, 0, 1)),
        (JOB.steps, (SEED_SPACE - 2, 0)),
    ]
    assert (outcome.status, outcome.winner) == (Status.ACCEPTED, 0)
    assert outcome.score == pytest.approx(0.6)
    assert [[s.raw for s in c.previews] for c in outcome.candidates] == [
        [0.5], [0.25], [0.75], [0.125]
    ]  # fmt: skip
    assert [c.score is None for c in outcome.candidates] == [False, True, False, True]
    image = parts.committed[0][1]
    assert image is not None
    assert image.mean() == pytest.approx(0.6)


def test_a_draft_never_wins_however_good_it_is() -> None:
    _, outcome = drafted((0.9, 0.95, 0.75, 1.0), (0.1, 0.3, 0.99, 0.2))
    assert (outcome.status, outcome.winner) == (Status.BELOW_GATE, 1)
    assert outcome.score == pytest.approx(0.3)


@given(st.permutations([0.1, 0.3, 0.6, 0.8]), st.permutations([0.2, 0.4, 0.7, 0.9]))
def test_the_place_of_a_draft_decides_nothing(drafts: list[float], finals: list[float]) -> None:
    _, outcome = drafted(drafts, finals)
    best = sorted(range(4), key=lambda index: -drafts[index])[:2]
    assert outcome.score == pytest.approx(max(finals[index] for index in best))


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


def test_the_time_of_a_texts_guard_is_in_its_stage() -> None:
    class Slow(Parts):
        def check_text(self, text: str, place: str) -> None:
            time.sleep(0.1)

    seconds = run_job(JOB, Slow(scores(0.2, 0.9, 0.95, 0.1)).ports()).seconds
    assert seconds["retrieve"] >= 0.1
    assert seconds["write"] >= 0.1


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
