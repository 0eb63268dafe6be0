"""Rounds of edits: a best candidate that lacks little is what the next round begins from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from flows.runs.reproduce import reproduce_record
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.models import model_digests
from pipeline.errors import Blocked, JobError
from pipeline.job import (
    Brief,
    Check,
    CheckKind,
    Context,
    ImageArray,
    InputImage,
    Job,
    JudgeRequest,
    Rejected,
    RenderRequest,
    Score,
)
from pipeline.media.image import decode
from pipeline.ports import Pruner
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.settings import load_settings
from tests.harness.jobs import make_job, make_spec
from tests.harness.parts import JOB, Parts, answered

EDITED = JOB.model_copy(update={"rounds": 2, "candidates": 2, "edit_strength": 0.5})
FIRST = (answered(0.4, 0.9, 0.2), answered(0.3, 0.1, 0.9))
"""The first candidate is the best, and fails the second check alone."""


@dataclass
class Editing(Parts):
    """Briefs with two checks of these kinds; each rejected prompt gets another."""

    kinds: tuple[CheckKind, CheckKind] = ("object", "attribute")
    rejected: int = 0

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        self.rejected += bool(rejected)
        first, second = self.kinds
        checks = (Check(question="A circle?", kind=first), Check(question="Red?", kind=second))
        return Brief(text="text", prompt=f"prompt {self.rejected}", checks=checks)


def test_a_best_candidate_that_lacks_little_is_edited() -> None:
    parts = Editing([*FIRST, answered(0.2, 0.9, 0.1), answered(0.8, 0.9, 0.8)])
    outcome = run_job(EDITED, parts.ports())
    first, second = parts.requests
    assert (first.image, first.strength) == (None, 1.0)
    assert second.image is not None
    assert np.array_equal(second.image.pixels, np.full((16, 16, 3), first.seeds[0] % 97 / 97, "f"))
    assert (second.strength, second.prompt) == (0.5, "prompt 0")
    assert second.seeds == tuple(EDITED.candidate_seed(index) for index in (2, 3))
    assert (outcome.status, outcome.winner) == (Status.ACCEPTED, 3)
    (refinement,) = outcome.refinements
    assert (refinement.kind, refinement.missing, refinement.first) == ("edited", ("Red?",), 2)
    assert refinement.image == InputImage(
        path="candidate 0", sha256=second.image.sha256, width=16, height=16
    )
    assert refinement.brief == outcome.brief
    job = outcome.winners_job
    assert job is not None
    assert (job.image, job.strength) == (refinement.image, 0.5)
    assert outcome.job == EDITED
    assert Outcome.model_validate_json(outcome.model_dump_json()).refinements == (refinement,)


def test_an_edit_that_is_worse_leaves_the_candidate_that_it_began_from() -> None:
    parts = Editing([*FIRST, answered(0.2, 0.9, 0.1), answered(0.39, 0.9, 0.2)])
    outcome = run_job(EDITED, parts.ports())
    assert (outcome.status, outcome.winner, len(outcome.candidates)) == (Status.BELOW_GATE, 0, 4)
    assert outcome.winners_job == EDITED
    image = parts.committed[0][1]
    assert image is not None
    assert np.array_equal(image, parts.kept[0])


def test_a_third_round_begins_from_the_best_of_all() -> None:
    given = [*FIRST, answered(0.45, 0.9, 0.2), answered(0.2, 0.1, 0.9)]
    parts = Editing([*given, answered(0.1, 0.9, 0.2), answered(0.1, 0.9, 0.9)])
    outcome = run_job(EDITED.model_copy(update={"rounds": 3}), parts.ports())
    assert [each.image and each.image.path for each in outcome.refinements] == [
        "candidate 0",
        "candidate 2",
    ]
    assert outcome.winner == 2
    assert outcome.winners_job is not None
    assert outcome.winners_job.image == outcome.refinements[0].image


def test_an_edit_has_the_prompt_of_the_candidate_that_it_begins_from() -> None:
    given = [answered(0.4, 0.9, 0.2), answered(0.3, 0.9, 0.1)]  # all fail the second check
    given += [answered(0.2, 0.1, 0.9), answered(0.1, 0.9, 0.3)]
    parts = Editing([*given, answered(0.9, 0.9, 0.9), answered(0.1, 0.9, 0.9)])
    outcome = run_job(EDITED.model_copy(update={"rounds": 3}), parts.ports())
    assert [each.kind for each in outcome.refinements] == ["rewritten", "edited"]
    assert [request.prompt for request in parts.requests] == ["prompt 0", "prompt 1", "prompt 0"]
    assert outcome.winner == 4
    assert outcome.winners_brief == outcome.brief


@pytest.mark.parametrize("kind", ["count", "relation"])
def test_layout_is_not_edited(kind: CheckKind) -> None:
    parts = Editing(FIRST, kinds=("object", kind))
    outcome = run_job(EDITED, parts.ports())
    assert (outcome.refinements, len(parts.requests), parts.kept) == ((), 1, [])


@pytest.mark.parametrize(
    ("given", "kinds", "changes"),
    [
        (FIRST, ("object", "attribute"), {"edit_strength": 0.0}),
        (FIRST, ("object", "attribute"), {"rounds": 1}),
        (FIRST, ("attribute", "object"), {}),  # it shows none of the objects
        ([answered(0.4, 0.2, 0.2), answered(0.3, 0.9, 0.9)], ("attribute", "attribute"), {}),
        ([answered(0.4, 0.9, 0.9), answered(0.3, 0.1, 0.9)], ("object", "attribute"), {}),
    ],
)
def test_nothing_is_edited(
    given: Sequence[Score], kinds: tuple[CheckKind, CheckKind], changes: dict[str, object]
) -> None:
    parts = Editing(given, kinds=kinds)
    outcome = run_job(EDITED.model_copy(update=changes), parts.ports())
    assert (outcome.refinements, outcome.notices, len(parts.requests)) == ((), (), 1)


@pytest.mark.parametrize("kinds", [("object", "object"), ("attribute", "text")])
def test_a_part_of_the_image_is_edited(kinds: tuple[CheckKind, CheckKind]) -> None:
    parts = Editing([*FIRST, answered(0.2, 0.9, 0.1), answered(0.8, 0.9, 0.8)], kinds=kinds)
    assert [each.kind for each in run_job(EDITED, parts.ports()).refinements] == ["edited"]


def test_a_check_that_all_fail_is_edited_where_the_writer_has_no_other_prompt() -> None:
    class Stubborn(Editing):
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            return super().write(job, context)

    given = [answered(0.4, 0.9, 0.2), answered(0.3, 0.9, 0.3)] * 2
    assert [each.kind for each in run_job(EDITED, Editing(given).ports()).refinements] == [
        "rewritten"
    ]
    assert [each.kind for each in run_job(EDITED, Stubborn(given).ports()).refinements] == [
        "edited"
    ]


def test_a_strength_of_no_step_is_told() -> None:
    parts = Editing(FIRST)
    outcome = run_job(EDITED.model_copy(update={"steps": 1}), parts.ports())
    assert (outcome.refinements, len(parts.requests)) == ((), 1)
    assert outcome.notices == ("the best candidate was not edited: 0.5 of 1 steps is no step",)


def test_a_strength_of_no_step_of_a_draft_is_told() -> None:
    parts = Editing((*FIRST, *FIRST))
    rule = {"contest": "draft", "draft_steps": 1, "survivors": 2, "edit_strength": 0.6}
    outcome = run_job(EDITED.model_copy(update=rule), parts.ports())
    assert outcome.refinements == ()
    assert outcome.notices == ("the best candidate was not edited: 0.6 of 1 steps is no step",)


def test_a_row_with_an_image_of_its_own_is_not_edited_and_says_so() -> None:
    own = InputImage(path="a.png", sha256="a" * 64, width=5, height=7)
    parts = Editing(FIRST)
    outcome = run_job(EDITED.model_copy(update={"image": own}), parts.ports())
    assert (outcome.refinements, len(parts.requests)) == ((), 1)
    assert outcome.notices == (
        "the best candidate was not edited: the row begins from an image of its own",
    )


def test_a_renderer_that_begins_from_no_image_leaves_it_to_references() -> None:
    class Plain(Editing):
        def render(
            self, request: RenderRequest, pruner: Pruner | None = None
        ) -> Sequence[ImageArray | None]:
            if request.image:
                raise JobError("the model cannot begin from an image")
            return super().render(request, pruner)

    parts = Plain(FIRST)
    steered = {"collection": "c", "references": 1, "reference_scale": 0.5}
    outcome = run_job(EDITED.model_copy(update=steered), parts.ports())
    edited, steered_round = outcome.refinements
    assert (edited.kind, steered_round.kind) == ("edited", "steered")
    assert (edited.brief, edited.image and edited.image.path) == (None, "candidate 0")
    assert outcome.notices == (
        "the best candidate was not edited: the model cannot begin from an image",
    )


def test_the_record_names_the_image_of_an_edit_that_a_guard_blocks() -> None:
    class Guarded(Editing):
        def refusals(self, images: Sequence[ImageArray]) -> Sequence[str]:
            if self.kept:
                raise Blocked("it shows what is refused")
            return super().refusals(images)

    parts = Guarded([*FIRST, *FIRST])
    outcome = run_job(EDITED, parts.ports())
    assert (outcome.status, outcome.winner, len(parts.kept)) == (Status.BLOCKED, None, 1)
    (refinement,) = outcome.refinements
    assert refinement.image
    assert (refinement.image.path, refinement.first) == ("candidate 0", 2)


PROFILE = """
extends = "shapes"
[writer]
kind = "template"
questions = [{ question = "A circle?" }, { question = "Red?", kind = "attribute" }]
[[judge]]
kind = "questions"
model = "sees"
"""


@dataclass
class Painter:
    """A judge to whom the first round's candidate 1 lacks its colour; later images pass."""

    seen: list[ImageArray] = field(default_factory=list)

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        given = []
        for image in images:
            self.seen.append(image)
            lacking = [answered(0.2, 0.1, 0.9), answered(0.4, 0.9, 0.2)]
            given.append([*lacking, answered(0.6, 0.9, 0.9), answered(0.5, 0.9, 0.9)][self.place])
        return given

    @property
    def place(self) -> int:
        """Of the image that was seen last."""
        return len(self.seen) - 1


def test_an_edit_by_the_engine_keeps_the_layout_and_is_made_again(tmp_path: Path) -> None:
    profile = tmp_path / "edits.toml"
    profile.write_text(PROFILE)
    settings = load_settings(
        home=tmp_path / "home", store=str(tmp_path / "out"), profile=str(profile), device="cpu"
    )
    chosen = settings.chosen_profile
    spec = make_spec(profile=chosen.model_dump(mode="json"), models=model_digests(settings, chosen))
    assembly, judge = Assembly(settings), Painter()
    assembly.run_folder(spec.run).write_spec(spec)
    job = make_job(
        keywords="a large red circle on a gray background", candidates=2, rounds=2, width=64,
        height=64, steps=10, threshold=0.55, edit_strength=0.4, mode="keywords",
    )  # fmt: skip
    outcome = run_job(job, replace(assembly.ports(spec), judge=judge))
    assert (outcome.status, outcome.winner, outcome.renderer) == (Status.ACCEPTED, 2, "engine")
    begun = outcome.refinements[0].image
    assert begun is not None
    stored = tmp_path / "out" / "inputs" / f"{begun.sha256}.png"
    assert np.abs(decode(stored.read_bytes()) - judge.seen[1]).max() <= 0.51 / 255
    other, source, edit, _ = judge.seen
    assert 0 < np.abs(edit - source).mean() < np.abs(edit - other).mean() / 2
    assert reproduce_record(f"{spec.run}/{outcome.job_id}", settings, None)["equal"]
    stored.unlink()
    with pytest.raises(JobError, match="'candidate 1' is gone from the store"):
        reproduce_record(f"{spec.run}/{outcome.job_id}", settings, None)
