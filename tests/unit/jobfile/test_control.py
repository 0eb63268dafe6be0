"""The columns of ControlNets: which rows may be rendered with one."""

import re
from pathlib import Path

import pytest

from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.jobfile.remarks import Notice
from pipeline.media.inputs import InputReader
from pipeline.profile import ControlProfile, Profile
from tests.unit.jobfile.test_inputs import an_image

SHAPES = Profile.load("shapes")
RENDERER = SHAPES.renderer.model_copy(
    update={"controls": {"canny": ControlProfile(model="a"), "depth": ControlProfile(model="b")}}
)
PROFILE = SHAPES.model_copy(update={"renderer": RENDERER})
NONE = SHAPES.model_copy(update={"renderer": RENDERER.model_copy(update={"controls": {}})})
HEADER = "keywords,control,control_image,control_scale,control_from,control_until,seed\n"


def read(
    folder: Path, *rows: str, profile: Profile = PROFILE, notices: list[Notice] | None = None
) -> list[Job | BadRow]:
    (folder / "a.png").write_bytes(an_image())
    path = folder / "jobs.csv"
    path.write_text(HEADER + "".join(f"circle,{row},1\n" for row in rows))
    told = [] if notices is None else notices
    inputs = InputReader([folder])
    return list(read_jobs(path, profile, Overrides(), told.append, inputs=inputs))


def test_a_row_names_a_control_and_its_image(tmp_path: Path) -> None:
    rows = ["canny,a.png,,,", "canny,a.png,0.5,0.25,0.75", "depth,a.png,,,", ",,,,"]
    one, part, *_ = jobs = read(tmp_path, *rows)
    assert isinstance(one, Job)
    assert isinstance(part, Job)
    assert (one.control, one.control_scale, one.control_from, one.control_until) == (
        "canny", 1.0, 0.0, 1.0
    )  # fmt: skip
    assert (part.control_scale, part.control_from, part.control_until) == (0.5, 0.25, 0.75)
    assert one.control_image
    assert one.control_image.path == "a.png"
    assert len({job.id for job in jobs}) == 4
    (tmp_path / "b.png").write_bytes(an_image(16))
    (other,) = read(tmp_path, "canny,b.png,,,")
    assert other.id != one.id


def test_another_model_or_preprocessor_of_any_name_is_another_job(tmp_path: Path) -> None:
    ids = set[str]()
    # `batch` is also the name of a setting that changes no job
    for name in ("canny", "batch"):
        for model, preprocessor in (("a", "none"), ("b", "none"), ("a", "canny")):
            control = ControlProfile.model_validate({"model": model, "preprocessor": preprocessor})
            renderer = RENDERER.model_copy(update={"controls": {name: control}})
            profile = SHAPES.model_copy(update={"renderer": renderer})
            (job,) = read(tmp_path, f"{name},a.png,,,", profile=profile)
            assert isinstance(job, Job)
            ids.add(job.id)
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("row", "column", "said"),
    [
        ("pose,a.png,,,", "control", r"no ControlNet 'pose' \(renderer.controls has: canny, depth"),
        ("canny,,,,", "control", "it needs an image to read, in the column control_image"),
        (",a.png,,,", "control_image", "control has to name a ControlNet too"),
        ("canny,gone.png,,,", "control_image", "there is no such file"),
        ("canny,a.png,2.5,,", "control_scale", "less than or equal to 2"),
        ("canny,a.png,nan,,", "control_scale", "not a number"),
        ("canny,a.png,,0.7,0.7", "control_until", "none of 20 steps lies between"),
        ("canny,a.png,,0.51,0.54", "control_until", "none of 20 steps lies between"),
        ("canny,a.png,,1e18,", "control_from", "less than or equal to 1"),
        ("../canny,a.png,,,", "control", "no plain name"),
    ],
)
def test_what_cannot_be_used_is_a_bad_row_with_its_column(
    tmp_path: Path, row: str, column: str, said: str
) -> None:
    (bad,) = read(tmp_path, row)
    assert isinstance(bad, BadRow)
    assert bad.column == column
    assert re.search(said, bad.reason), bad.reason


def test_a_profile_without_controls_says_so(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, "canny,a.png,,,", profile=NONE)
    assert isinstance(bad, BadRow)
    assert "(renderer.controls has: none)" in bad.reason


def test_settings_of_no_control_have_no_effect_and_a_notice(tmp_path: Path) -> None:
    notices = list[Notice]()
    rows = read(tmp_path, ",,0.5,0.1,0.9", "canny,a.png,0,,", notices=notices)
    assert all(isinstance(row, Job) for row in rows)
    assert [notice.column for notice in notices] == [
        "control_scale", "control_from", "control_until", "control"
    ]  # fmt: skip
    assert "control has no effect with a control_scale of 0" in notices[-1].reason
