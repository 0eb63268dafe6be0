"""Calibrations with models that are not there: which rows they leave out, and what they write."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.runs import calibrate
from pipeline.errors import Blocked, NothingToJudge, RunError
from pipeline.job import (
    Brief,
    Context,
    ImageArray,
    InputImage,
    Job,
    JudgeRequest,
    LoadedImage,
    Passage,
    Rejected,
    RenderRequest,
    Score,
)
from pipeline.jobfile.reader import Overrides
from pipeline.ports import Ports, Pruner
from pipeline.profile import Profile
from pipeline.record import Outcome
from pipeline.settings import Settings, load_settings
from pipeline.telemetry import charge

FOUND = (Passage(id="1", text="a red ring", source="a.md", score=1.0),)
SCREENED = (Passage(id="2", text="a blue ring", source="b.md", score=1.0),)


@dataclass
class Parts:
    """The ports that a calibration asks; a score is 0.5, and more by `apart` for each seed."""

    apart: float = 0.05
    written: list[tuple[str, Context]] = field(default_factory=list)
    rendered: list[str] = field(default_factory=list)

    def check_text(self, text: str, place: str) -> None:
        if f"bad {place}" in text:
            raise Blocked(f"{place}: bad")

    def check_inputs(self, job: Job) -> None:
        """None is refused."""

    def screened(self, context: Context) -> Context:
        assert context.passages == FOUND
        return Context(passages=SCREENED)

    def refusals(self, images: Sequence[ImageArray]) -> Sequence[str]:
        charge("guard", 9.0)
        return ["unsafe" if image[0, 0, 0] > 0.9 else "" for image in images]

    def retrieve(self, job: Job) -> Context:
        return Context(passages=FOUND)

    def load(self, image: InputImage, width: int, height: int) -> LoadedImage:
        raise NotImplementedError

    def embed(self, image: InputImage) -> tuple[float, ...]:
        raise NotImplementedError

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        raise NotImplementedError

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        self.written.append((job.keywords, context))
        return Brief(text=job.keywords, prompt=job.keywords.replace("evil", "bad prompt"))

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        self.rendered.append(request.prompt)
        charge("renderer", 1.0)
        images = [np.full((8, 8, 3), seed % 100 / 200, np.float32) for seed in request.seeds]
        if "unsafe" in request.prompt:
            images = [
                each if seed % 4 else np.ones_like(each)
                for seed, each in zip(request.seeds, images, strict=True)
            ]
        for _ in pruner.points if pruner else ():
            assert pruner is not None
            pruner.keep(images)
        return images

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        assert not any(image[0, 0, 0] > 0.9 for image in images) or request.previews
        if "unlike" in request.prompt:
            raise NothingToJudge("no image")
        values = [0.5 + self.apart * float(image[0, 0, 0]) for image in images]
        return [Score(raw=value, calibrated=value) for value in values]

    def ports(self) -> Ports:
        return Ports(
            guard=self, retriever=self, writer=self, inputs=self, renderer=self, judge=self,
            records=self, run="r", judge_against="prompt", models={"": {}},
        )  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"), home=tmp_path)


Measure = Callable[..., dict[str, Any]]


@pytest.fixture(params=["stop", "race", "draft"])
def measure(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Measure:
    """Calibrates on rows of four candidates each."""
    return partial(report_of, request.param, settings=settings, folder=tmp_path)


def report_of(
    kind: str,
    rows: Sequence[str],
    parts: Parts,
    settings: Settings,
    folder: Path,
    out: Path | None = None,
) -> dict[str, Any]:
    jobs = folder / "jobs.csv"
    jobs.write_text("\n".join(["keywords,candidates", *rows]), encoding="utf-8")
    wanted = Overrides(candidates=4, retrieval=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate, "opened_ports", lambda *_: nullcontext(parts.ports()))
        if kind == "stop":
            return calibrate.calibrate_stop(jobs, wanted, 64, settings, out)
        if kind == "draft":
            return calibrate.calibrate_draft(jobs, wanted, 64, 0.02, settings)
        return calibrate.calibrate_race(jobs, wanted, 64, 0.02, settings)


GOOD = [f"ring {number}," for number in range(8)]


def test_rows_that_have_no_contest_are_left_out_and_told(measure: Measure) -> None:
    bad = ["bad keywords,", "evil ring,", "ring unlike all,"]
    parts = Parts()
    report = measure([bad[0], *GOOD, *bad[1:]], parts)
    assert (report["jobs"], report["left_out"]) == (8, 3)
    assert report["reasons"] == [
        {"row": 2, "reason": "keywords: bad"},
        {"row": 11, "reason": "prompt: bad"},
        {"row": 12, "reason": "no image"},
    ]
    assert {context.passages for _, context in parts.written} == {SCREENED}
    assert "bad keywords" not in [keywords for keywords, _ in parts.written]
    assert "bad prompt ring" not in parts.rendered


def test_no_image_that_a_guard_refuses_is_judged(measure: Measure) -> None:
    report = measure([f"unsafe {row}" for row in GOOD], Parts())
    assert (report["jobs"], report["left_out"]) == (8, 0)
    assert report.get("preview_price", 0) == 0, "no guard sees a preview"
    assert "reasons" not in report


def test_where_no_row_is_left_the_first_reason_is_told(measure: Measure) -> None:
    rows = [f"{row[:-1]} unlike {number}," for number, row in enumerate(GOOD)]
    with pytest.raises(RunError, match="row 2: no image"):
        measure(rows, Parts())


def test_a_prior_of_too_few_rows_that_are_left_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    rows = [*GOOD[1:], "evil ring,"]
    with pytest.raises(RunError, match=r"8 jobs .* 1 of 8 were left out.* row 9: prompt: bad"):
        report_of("stop", rows, Parts(), settings, tmp_path)


def test_a_prior_of_scores_that_hardly_differ_is_one_that_a_profile_takes(
    settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "own.toml"
    report = report_of("stop", GOOD, Parts(apart=0.1), settings, tmp_path, out)
    assert 1e-6 < report["prior"]["within"] < 5e-5
    prior = Profile.load(str(out)).defaults.prior
    assert prior is not None
    assert prior.model_dump() == report["prior"]


def test_of_rows_of_different_numbers_of_candidates_the_mean_is_told(
    settings: Settings, tmp_path: Path
) -> None:
    report = report_of("stop", [*GOOD, "ring,9", "ring,3"], Parts(), settings, tmp_path)
    assert report["candidates"] == 4.4
    assert report_of("stop", GOOD, Parts(), settings, tmp_path)["candidates"] == 4


@dataclass
class Sketching(Parts):
    """Drafts whose brightness is that of the images, or of the ones in the opposite order."""

    faithful: bool = True

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        charge("renderer", request.steps * len(request.seeds) / 100)
        shades = [(seed - request.seeds[0] + 1) / 8 for seed in request.seeds]
        if request.steps < 20 and not self.faithful:
            shades.reverse()
        return [np.full((8, 8, 3), shade, np.float32) for shade in shades]


def sketched(parts: Parts, settings: Settings, folder: Path, *rows: str) -> Any:
    jobs = folder / "jobs.csv"
    jobs.write_text("\n".join(["keywords,draft_steps,survivors", *rows]), encoding="utf-8")
    wanted = Overrides(candidates=4, retrieval=False, threshold=0.72)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate, "opened_ports", lambda *_: nullcontext(parts.ports()))
        return calibrate.calibrate_draft(jobs, wanted, 64, 0.02, settings)


def test_drafts_that_rank_as_the_images_pay(settings: Settings, tmp_path: Path) -> None:
    found = sketched(Sketching(apart=0.5), settings, tmp_path, "a,5,1", "b,5,1")
    assert (found["jobs"], found["candidates"]) == (2, 4)
    assert (found["steps"], found["draft_steps"]) == (20, 5)
    assert (found["spearman"], found["draft_price"]) == (1, 0.25)
    # scores from 0.5625 to 0.75: only the best candidate passes
    assert found["profile"] == {
        "survivors": 1, "cost": 0.5, "regret": 0, "fewer_regret": 0.0556, "loses": False,
        "accepted": 1, "steps_per_accepted": 4 * 5 + 20,
    }  # fmt: skip
    assert found["proposal"] == found["profile"]
    assert [each["survivors"] for each in found["forecast"]] == [1, 2, 3]
    assert found["forecast"][2]["loses"], "three renders and four drafts cost as much as four"
    assert found["fewer"] == {
        "candidates": 4, "cost": 1, "regret": 0, "accepted": 1, "steps_per_accepted": 80
    }  # fmt: skip
    assert "refused" not in found


def test_drafts_that_mislead_are_refused(settings: Settings, tmp_path: Path) -> None:
    found = sketched(Sketching(apart=0.5, faithful=False), settings, tmp_path, "a,5,1", "b,5,1")
    assert (found["spearman"], found["proposal"]) == (-1, None)
    assert (found["profile"]["accepted"], found["profile"]["steps_per_accepted"]) == (0, None)
    assert "fewer candidates" in found["refused"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a,20,1", "b,20,1"], "no shorter"),
        (["a,7,1", "b,8,1"], "cannot be compared"),
        (["a,5,1", "b,5,2"], "cannot be compared"),
    ],
)
def test_drafts_that_are_none_are_not_measured(
    settings: Settings, tmp_path: Path, rows: list[str], said: str
) -> None:
    with pytest.raises(RunError, match=said):
        sketched(Sketching(), settings, tmp_path, *rows)
